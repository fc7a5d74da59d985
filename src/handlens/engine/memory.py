"""How much memory this process holds, held at most, and may still take.

Boundary: the operating system; knows no model. Linux reads ``/proc``; elsewhere what the standard library offers.
"""

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

GIB = 1 << 30


def resident_bytes() -> int:
    """Return the memory this process holds now; its peak where the system tells no more."""
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Return the most memory this process held since it began, or since ``reset_peak``."""
    held = _status("VmHWM")
    if held:
        return held
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def reset_peak() -> bool:
    """Let ``peak_bytes`` begin again; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def total_bytes() -> int:
    """Return the memory of this machine, or of the container where that is less."""
    return min([_meminfo("MemTotal") or _pages_bytes(), *_limits()])


def available_bytes() -> int:
    """Return what can be taken without swapping: free memory and clean cache, within every limit of this process."""
    free = _meminfo("MemAvailable") or _pages_bytes()
    return min([free, *(max(0, limit - resident_bytes()) for limit in _limits())])


def give_back() -> None:
    """Hand freed memory back to the system, so that the next half finds it."""
    gc.collect()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def human(count: int | float) -> str:
    """Return bytes in the unit that people would use.

    >>> human(512), human(12_400_000), human(4_900_000_000)
    ('512 B', '12.4 MB', '4.90 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            scaled = count / size
            return f"{scaled:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} B"


def _limits() -> list[int]:
    """Return the limits that someone set: of the container and of the shell (``ulimit -v``)."""
    found = []
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(file).read_text(encoding="ascii"))
            found += [limit] if limit < 1 << 60 else []
    with contextlib.suppress(ModuleNotFoundError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        found += [limit] if 0 < limit < 1 << 60 else []
    return found


def _pages_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 * GIB


def _status(key: str) -> int:
    return _kibibytes("/proc/self/status", key)


def _meminfo(key: str) -> int:
    return _kibibytes("/proc/meminfo", key)


def _kibibytes(file: str, key: str) -> int:
    """Return the value of a line ``key:   1234 kB`` in bytes; 0 where there is none."""
    try:
        lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
