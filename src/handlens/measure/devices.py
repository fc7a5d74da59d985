"""What a device can do: memory, bandwidth, arithmetic. Described devices as data, this machine by measurement.

Boundary: numbers with their sources; ``plan.py`` turns them into seconds.
"""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handlens.errors import SettingError, did_you_mean

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Device:
    """One kind of device; rates are what its processor cores reach at best."""

    name: str
    cores: int
    """Cores that compute; small ones that would hold the others up are left out."""
    memory_bytes: int
    read_bytes_per_second: float
    """Memory bandwidth."""
    flops_per_second: float
    """Multiply-adds of 32-bit numbers, both counted, on all these cores."""
    storage_bytes_per_second: float
    """Reading a model file that is not in memory."""
    source: str
    """Where the numbers come from, and how the arithmetic rate was derived."""
    runtime_bytes: int = 100_000_000
    """Python and the engines before any weight is loaded."""
    int8_gain: float = 2.0
    """How much faster 8-bit matrices are multiplied than 32-bit ones."""
    is_measured: bool = False


REQUIRED = {
    field.name
    for field in dataclasses.fields(Device)
    if field.default is dataclasses.MISSING and field.name != "source"
}
"""Keys that a description needs."""
DEVICES = {
    device.name: device
    for device in (
        Device(
            name="snapdragon-8-gen-3", cores=6, memory_bytes=int(16 * GB), read_bytes_per_second=76.8 * GB,
            flops_per_second=358 * GB, storage_bytes_per_second=2.0 * GB, int8_gain=4.0,
            source="Qualcomm product brief 87-71408-1: LPDDR5X 4800 MHz on 64 bits = 76.8 GB/s, up to 24 GB (16 GB in "
            "the Xiaomi 14 Pro). Arithmetic derived: one X4 at 3.3 GHz with 4 vector units and five A720 at about "
            "3.1 GHz with 2, of 128 bits each; i8mm. UFS 4.0: half of its 4 GB/s",
        ),
        Device(
            name="dimensity-9300", cores=8, memory_bytes=int(16 * GB), read_bytes_per_second=76.8 * GB,
            flops_per_second=495 * GB, storage_bytes_per_second=2.0 * GB, int8_gain=4.0,
            source="MediaTek product page: LPDDR5T 9600 Mbit/s on 64 bits; four X4 up to 3.25 GHz, four A720 at "
            "2.0 GHz. Arithmetic derived as for the Snapdragon",
        ),
        Device(
            name="apple-m1", cores=4, memory_bytes=int(8 * GB), read_bytes_per_second=68.3 * GB,
            flops_per_second=410 * GB, storage_bytes_per_second=2.5 * GB, int8_gain=2.0,
            source="Apple, M1 specifications: LPDDR4X-4266 on 128 bits, 8 or 16 GB. Arithmetic derived: four "
            "performance cores at 3.2 GHz with 4 vector units of 128 bits; the matrix unit is not counted",
        ),
        Device(
            name="raspberry-pi-5", cores=4, memory_bytes=int(8 * GB), read_bytes_per_second=17.1 * GB,
            flops_per_second=154 * GB, storage_bytes_per_second=0.09 * GB, int8_gain=3.0,
            source="Raspberry Pi 5 product brief: LPDDR4X-4267 on 32 bits, 2 to 16 GB (8 here), microSD. Arithmetic "
            "derived: four A76 at 2.4 GHz with 2 vector units of 128 bits; dot product, no i8mm",
        ),
        Device(
            name="intel-n100", cores=4, memory_bytes=int(8 * GB), read_bytes_per_second=38.4 * GB,
            flops_per_second=186 * GB, storage_bytes_per_second=1.5 * GB, int8_gain=2.0,
            source="Intel ARK, N100: one channel of DDR5-4800 (38.4 GB/s), up to 16 GB (8 here), AVX2. Arithmetic "
            "derived: four cores at 2.9 GHz with 2 vector units of 128 bits",
        ),
        Device(
            name="rk3588", cores=4, memory_bytes=int(8 * GB), read_bytes_per_second=34.1 * GB,
            flops_per_second=154 * GB, storage_bytes_per_second=0.3 * GB, int8_gain=3.0,
            source="Rockchip RK3588 brief: LPDDR4X-4266 on 64 bits, four A76 up to 2.4 GHz; eMMC 5.1. Arithmetic "
            "derived as for the Raspberry Pi",
        ),
    )
}  # fmt: skip
"""Devices that can be named. Bandwidth and sizes are published, arithmetic rates are derived from clock and width."""
ALIASES = {
    "snapdragon 8 gen 3": "snapdragon-8-gen-3", "xiaomi-14-pro": "snapdragon-8-gen-3", "8gen3": "snapdragon-8-gen-3",
    "m1": "apple-m1", "rpi5": "raspberry-pi-5", "pi5": "raspberry-pi-5", "n100": "intel-n100",
}  # fmt: skip


def device_named(name: str) -> Device:
    """Return a described device, one of a JSON file, or this machine for ``this``.

    Raises:
        SettingError: the name is unknown, or the file is no description.
    """
    if name in ("", "this"):
        return this_device()
    if name.endswith(".json") or Path(name).is_file():
        return read_device(Path(name))
    key = name.strip().lower()
    key = ALIASES.get(key, key.replace(" ", "-").replace("_", "-"))
    key = ALIASES.get(key, key)
    if key not in DEVICES:
        raise SettingError(f"unknown device '{name}'{did_you_mean(key, DEVICES)}; or give a JSON file of its numbers")
    return DEVICES[key]


def read_device(file: Path) -> Device:
    """Read a description; its keys are the fields of ``Device``.

    Raises:
        SettingError: a key is unknown or missing, or a value is no number.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(Device)}
        for key in fields:
            if key not in known:
                raise SettingError(f"{file} has the unknown key '{key}'{did_you_mean(key, known)}")
        missing = sorted(REQUIRED - set(fields))
        if missing:
            raise SettingError(f"{file} lacks {', '.join(missing)}; docs/device.md explains the keys of a device")
        device = Device(**{"source": str(file), **fields})
        rates = (device.read_bytes_per_second, device.flops_per_second, device.storage_bytes_per_second)
        if min(device.cores, device.memory_bytes, *rates) <= 0:
            raise SettingError(f"{file} has a rate or size that is not above zero")
    except OSError as cause:
        raise SettingError(f"cannot read the device {file}: {cause.strerror or cause}") from None
    except (ValueError, TypeError) as cause:
        raise SettingError(f"{file} describes no device ({cause}); see docs/device.md for its keys") from None
    return device


def this_device(*, fresh: bool = False) -> Device:
    """Return this machine; its rates are measured once (about a second) and kept."""
    from platformdirs import user_cache_path

    from handlens.engine.memory import total_bytes
    from handlens.engine.setup import processor_name

    file = user_cache_path("handlens") / "this-device.json"
    if not fresh:
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["source"].endswith(processor_name()):
                return Device(**{**kept, "memory_bytes": total_bytes()})
        except (OSError, ValueError, TypeError, KeyError):
            pass
    device = measure_device()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(device), indent=2) + "\n", encoding="utf-8")
    except OSError:
        pass
    return device


def measure_device() -> Device:
    """Measure this machine: bandwidth by summing, arithmetic by a matrix product, storage by the package's file."""
    from handlens.engine.cores import physical_cores
    from handlens.engine.memory import total_bytes
    from handlens.engine.setup import processor_name

    return Device(
        name="this machine",
        cores=physical_cores(),
        memory_bytes=total_bytes(),
        read_bytes_per_second=measure_bandwidth(physical_cores()),
        flops_per_second=measure_flops(),
        storage_bytes_per_second=1.0 * GB,
        runtime_bytes=measure_runtime(),
        is_measured=True,
        source=f"measured: best of several rounds on {processor_name()}",
    )


def measure_bandwidth(threads: int, *, megabytes: int = 192, rounds: int = 5) -> float:
    """Return bytes per second that ``threads`` threads read together; the best round, since neighbours only take."""
    from concurrent.futures import ThreadPoolExecutor

    block = np.ones(megabytes * 1_000_000 // 8, dtype=np.uint64)
    parts = np.array_split(block, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begin = time.perf_counter()
            list(pool.map(np.max, parts))
            best = max(best, block.nbytes / (time.perf_counter() - begin))
    return best


def measure_flops(*, side: int = 1024, rounds: int = 5) -> float:
    """Return 32-bit operations per second of numpy's matrix product; the best round."""
    left = np.ones((side, side), dtype=np.float32)
    best = 0.0
    for _ in range(rounds):
        begin = time.perf_counter()
        left @ left
        best = max(best, 2 * side**3 / (time.perf_counter() - begin))
    return best


def measure_runtime() -> int:
    """Return the bytes that Python and the engines hold before any weight, in a process of their own."""
    import subprocess
    import sys

    script = (
        "import onnxruntime, handlens.engine.answerer, handlens.engine.vision\n"
        "from handlens.engine import llama, memory\n"
        "llama.library(); print(memory.resident_bytes())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else Device.runtime_bytes


def to_json(device: Device) -> dict[str, Any]:
    """Return plain values, the keys that a description file has."""
    return dataclasses.asdict(device)
