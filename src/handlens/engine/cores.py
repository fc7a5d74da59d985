"""Count the processor cores that are free.

Boundary: the operating system; no engine. A thread of llama.cpp that spins on a busy core makes all others wait:
one busy neighbour costs it ten times its speed.
"""

import os
from pathlib import Path


def count_free_cores() -> int:
    """Return the physical cores this process may use, less those that others keep busy; at least 1."""
    allowed, total = physical_cores(), os.cpu_count() or 1
    free = allowed - round(min(busy_cores(), total) * allowed / total)
    quota = _cgroup_quota()
    return max(1, free if quota is None else min(free, int(quota)))


def physical_cores() -> int:
    """Return how many physical cores this process may run on; sibling threads count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    siblings = {
        _read(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") or str(number) for number in allowed
    }
    return len(siblings)


def busy_cores() -> int:
    """Return how many processes keep a core busy: in the last minute and at this moment, whichever is less.

    The minute remembers our own last answer; the moment may catch a short burst.
    """
    fields = _read("/proc/loadavg").split()
    if len(fields) < 4:
        return 0
    running_now = int(fields[3].partition("/")[0]) - 1  # this process counts itself
    return max(0, min(round(float(fields[0])), running_now))


def _cgroup_quota() -> float | None:
    """Return the cores that a container may use; None where nothing limits it."""
    limit, _, period = (_read("/sys/fs/cgroup/cpu.max") or "").partition(" ")
    return int(limit) / int(period) if limit.isdigit() and period.isdigit() else None


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except OSError:
        return ""
