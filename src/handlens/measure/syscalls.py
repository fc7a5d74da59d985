"""Take the network away from this process for good, at the border to the system: also for libraries in C.

Boundary: Linux on x86-64 and arm64, through seccomp; elsewhere nothing happens and the caller is told so.
"""

import ctypes
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER, ALL_THREADS = 1, 1
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 13
"""Verdicts of a filter; 13 is EACCES."""
MACHINES = {
    "x86_64": {"audit": 0xC000003E, "seccomp": 317, "refused": (41, 425)},
    "aarch64": {"audit": 0xC00000B7, "seccomp": 277, "refused": (198, 425)},
}
"""Name of the architecture in the filter and numbers of calls: seccomp; socket and io_uring_setup (which could open
one). Source: linux/audit.h and the system call tables."""
OTHER_ABI = 0x40000000
"""Numbers from here on belong to the x32 calls of x86-64, which nothing here uses."""
LOAD, IF_EQUAL, IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06


def forbid_sockets() -> bool:
    """Refuse every new socket, loopback too, in all threads of this process and its children; cannot be undone.

    Pairs of sockets that connect a process with itself stay possible. Returns False where the system cannot do it.
    """
    machine = MACHINES.get(platform.machine())
    if not sys.platform.startswith("linux") or machine is None or sys.maxsize < 2**32:
        return False
    lines = _filter(machine["audit"], machine["refused"])  # type: ignore[arg-type]
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    called = library.syscall(
        ctypes.c_long(machine["seccomp"]), ctypes.c_ulong(SET_MODE_FILTER), ctypes.c_ulong(ALL_THREADS), program  # type: ignore[arg-type]
    )  # fmt: skip
    return called == 0


def _filter(audit: int, refused: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Return (code, jump if true, jump if false, value) per line; the last two are the verdicts."""
    checks = [(IF_AT_LEAST, OTHER_ABI), *((IF_EQUAL, number) for number in refused)]
    lines = [(LOAD, 0, 0, 4), (IF_EQUAL, 0, len(checks) + 2, audit), (LOAD, 0, 0, 0)]
    lines += [(code, len(checks) - place, 0, value) for place, (code, value) in enumerate(checks)]
    return [*lines, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
