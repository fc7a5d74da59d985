"""What a run draws: measured where the machine has a meter, estimated and marked as such elsewhere.

Boundary: reads counters of the kernel and of the GPU driver; needs no right beyond reading them.
"""

import importlib
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

WATTS_PER_CORE = 8.0
"""A busy core with its share of memory: server processors of 2020 to 2025 are rated 200-400 W for 32-96 cores."""
GRAMS_PER_KWH = 480.0
"""Carbon dioxide of an average kWh of the world's grid (Ember, Global Electricity Review 2024, figure for 2023)."""
RAPL = Path("/sys/class/powercap")
PROCESSES = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Counters at one moment; differences mean something, values do not."""

    seconds: float
    processor_seconds: float
    joules: float


def grams_per_kwh() -> float:
    """Return the carbon of a kWh; ``HANDLENS_GRAMS_PER_KWH`` says what is true where the machine stands."""
    return float(os.environ.get("HANDLENS_GRAMS_PER_KWH", GRAMS_PER_KWH))


class Package:
    """The energy counter of one processor; it begins again at zero when it is full."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.full = int((file.parent / "max_energy_range_uj").read_text())
        self.last = int(file.read_text())
        self.microjoules = 0

    def joules(self) -> float:
        """Return the joules since this object was made; to be asked more often than the counter fills."""
        now = int(self.file.read_text())
        self.microjoules += now - self.last + (self.full if now < self.last else 0)
        self.last = now
        return self.microjoules / 1e6


class Meter:
    """Reads the same counters every time, and knows how honest they are."""

    def __init__(self, device: torch.device) -> None:
        found = [Package(file) for file in sorted(RAPL.glob("intel-rapl:?/energy_uj")) if os.access(file, os.R_OK)]
        self.is_metered = bool(found)
        # All processes of a machine see the same counters; the first one tells them.
        self.packages = found if os.environ.get("LOCAL_RANK", "0") == "0" else []
        self.gpu = _gpu_counter(device)
        processor = "measured: RAPL counters of the processor" if self.is_metered else (
            f"estimated: {WATTS_PER_CORE:g} W per busy core (no meter that can be read)"
        )  # fmt: skip
        card = "; measured: energy counter of the GPU" if self.gpu else (
            "; GPU not measured" if device.type == "cuda" else ""
        )  # fmt: skip
        self.method = processor + card

    def read(self) -> Reading:
        """Return the counters of now."""
        # The kernel adds a child only when it has ended and was asked for; the one that makes batches lives as long as
        # a phase. Asking who lives asks for the others, so it comes first.
        alive = sum(_processor_seconds(child.pid) for child in multiprocessing.active_children())
        times = os.times()
        busy = times.user + times.system + times.children_user + times.children_system + alive
        joules = sum(package.joules() for package in self.packages) if self.is_metered else busy * WATTS_PER_CORE
        return Reading(
            seconds=time.monotonic(),
            processor_seconds=busy,
            joules=joules + (self.gpu() if self.gpu else 0.0),
        )


def _processor_seconds(pid: int | None) -> float:
    """Return what a process has computed so far; 0 where the kernel does not say."""
    try:
        # The name of the program stands in brackets and may hold anything; user and system time come 11 fields later.
        words = (PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _gpu_counter(device: torch.device):  # type: ignore[no-untyped-def]
    """Return a function that reads the joules of a GPU since its driver was loaded, None without one."""
    if device.type != "cuda":
        return None
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    except Exception:  # the module, the driver or the counter is missing; each has its own kind of error
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1000
