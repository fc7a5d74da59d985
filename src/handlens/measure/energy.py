"""Temperature, frequency and energy of this machine, where it has a meter; nothing is guessed.

Boundary: files of the operating system, ``nvidia-smi`` where it is installed, and a CSV file of a power meter.
"""

import csv
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handlens.errors import DataError

NOT_MEASURABLE = "not measurable here"
RAPL = Path("/sys/class/powercap")
THERMAL = Path("/sys/class/thermal")
HWMON = Path("/sys/class/hwmon")
SUPPLY = Path("/sys/class/power_supply")
CPU = Path("/sys/devices/system/cpu")


def temperature_celsius() -> float | None:
    """Return the hottest sensor; None where there is none."""
    files = [*THERMAL.glob("thermal_zone*/temp"), *HWMON.glob("hwmon*/temp*_input")]
    values = [value / 1000 for file in files if (value := _number(file)) is not None]
    return max((value for value in values if -40 < value < 150), default=None)


def frequency_megahertz() -> float | None:
    """Return the mean clock of the cores; None where the system does not tell."""
    values = [value / 1000 for file in CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
              if (value := _number(file)) is not None]  # fmt: skip
    if not values:
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        values = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(values) / len(values) if values else None


@dataclass(kw_only=True)
class Meter:
    """Counts joules of the whole machine or processor since it was made."""

    method: str
    """For example "RAPL package"; ``not measurable here`` where there is no meter."""
    _last: float = 0.0
    _last_seconds: float = 0.0
    _joules: float = 0.0

    def read(self, now_seconds: float) -> float | None:
        """Return joules since the first call; None where there is no meter. Call it at least once a second or so."""
        if self.method == NOT_MEASURABLE:
            return None
        if self.method == "RAPL package":
            counted = _rapl_joules()
            if counted is None:
                return None
            if self._last and counted >= self._last:  # it wraps around: that interval is lost
                self._joules += counted - self._last
            self._last = counted
            return self._joules
        watts = _battery_watts() if self.method == "battery" else _nvidia_watts()
        if watts is None:
            return self._joules
        if self._last_seconds:
            self._joules += (watts + self._last) / 2 * (now_seconds - self._last_seconds)
        self._last, self._last_seconds = watts, now_seconds
        return self._joules


def find_meter() -> Meter:
    """Return the best meter of this machine."""
    if _rapl_joules() is not None:
        return Meter(method="RAPL package")
    if _battery_watts() is not None:
        return Meter(method="battery")
    if _nvidia_watts() is not None:
        return Meter(method="NVML (GPU only)")
    return Meter(method=NOT_MEASURABLE)


@dataclass(frozen=True, kw_only=True)
class PowerLog:
    """What a power meter logged; watts are joined by straight lines."""

    name: str
    seconds: np.ndarray
    """Unix time, rising."""
    watts: np.ndarray

    def covers(self, begin_seconds: float, end_seconds: float) -> bool:
        """True when the log reaches over both times."""
        return len(self.seconds) > 1 and bool(self.seconds[0] <= begin_seconds and end_seconds <= self.seconds[-1])

    @property
    def span(self) -> str:
        """First and last time, in words."""
        return f"{self.seconds[0]:.0f} to {self.seconds[-1]:.0f} s" if len(self.seconds) else "nothing"

    def joules(self, begin_seconds: float, end_seconds: float) -> float:
        """Return the joules between two times, both covered."""
        ends = [begin_seconds, end_seconds]
        grid = np.unique(np.clip(np.concatenate([self.seconds, ends]), begin_seconds, end_seconds))
        return float(np.trapezoid(np.interp(grid, self.seconds, self.watts), grid))


def read_power_log(file: Path) -> PowerLog:
    """Read a CSV file with a header that names ``seconds`` (Unix time) and ``watts``; a meter may have begun just now.

    Raises:
        DataError: the file cannot be read, or has no such columns.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream)
            rows = sorted((float(row["seconds"]), float(row["watts"])) for row in table)
            is_log = {"seconds", "watts"} <= set(table.fieldnames or ())
    except OSError as cause:
        raise DataError(f"cannot read {file}: {cause.strerror or cause}") from None
    except (KeyError, ValueError, TypeError):
        is_log = False
    if not is_log:
        raise DataError(f"{file} needs a header line 'seconds,watts' and numbers below it")
    seconds, watts = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return PowerLog(name=file.name, seconds=seconds, watts=watts)


def _rapl_joules() -> float | None:
    files = [file / "energy_uj" for file in RAPL.glob("intel-rapl:*") if file.name.count(":") == 1]
    values = [value for file in files if (value := _number(file)) is not None]
    return sum(values) / 1e6 if values else None


def _battery_watts() -> float | None:
    for supply in SUPPLY.glob("*"):
        if _text(supply / "status") != "Discharging":
            continue
        power = _number(supply / "power_now")
        if power is not None:
            return power / 1e6
        current, voltage = _number(supply / "current_now"), _number(supply / "voltage_now")
        if current is not None and voltage is not None:
            return abs(current) * voltage / 1e12
    return None


def _nvidia_watts() -> float | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    values = [float(line) for line in done.stdout.split() if line.replace(".", "", 1).isdigit()]
    return sum(values) if done.returncode == 0 and values else None


def _number(file: Path) -> float | None:
    text = _text(file)
    return float(text) if text.lstrip("-").isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
