"""Answer the known pictures without a network and write down what was tried.

Boundary: a process of its own (``python -m handlens.measure.alone BUNDLE``), because what is taken away here does not
come back. Prints one JSON object.
"""

import contextlib
import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

CONTROL_PORT = 9
"""Of loopback; named once by an unguarded process."""
OUTSIDE = "192.0.2.1"
"""An address that belongs to nobody. Source: RFC 5737, TEST-NET-1."""


def answer_alone(folder: Path, *, guarded: bool = True) -> dict[str, Any]:
    """Take the network away, prove that it is gone, answer, and return what was tried meanwhile.

    ``guarded=False`` takes nothing away, so that a tracer outside sees what would have been tried.
    """
    from handlens.measure.network import forbid_network
    from handlens.measure.syscalls import forbid_sockets
    from handlens.measure.telemetry import switch_off

    switch_off()
    written = watch_writes()
    facts: dict[str, Any] = {"guarded": guarded}
    tried: list[dict[str, Any]] = []
    if guarded:
        tried = forbid_network()
        facts["system_refuses"] = forbid_sockets()
        facts["python_is_stopped"] = _is_stopped_in_python()
        facts["c_is_stopped"] = _is_stopped_in_c()
        tried.clear()
    else:
        _show_the_tracer()
    from handlens.measure.known import check_known, read_known
    from handlens.measure.routes import check_routes

    # From here on nothing but the answers happens.
    written.clear()
    stations = check_known(folder)[0] if read_known(folder) else check_routes(folder)
    facts["tried"] = list(tried)
    facts["written"] = sorted(set(written))
    facts["sockets"] = held_sockets()
    facts["answered"] = len(stations)
    facts["different"] = [f"{station.picture}, {station.name}" for station in stations if station.status == "different"]
    return facts


def watch_writes() -> list[str]:
    """Return a list that receives the path of every file that Python opens for writing."""
    written: list[str] = []
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(values[2], int) and values[2] & writing and isinstance(values[0], str):
            written.append(values[0])

    sys.addaudithook(watch)
    return written


def held_sockets() -> int:
    """Return how many sockets this process holds; 0 where the system does not tell."""
    found = 0
    with contextlib.suppress(OSError):
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # the listing itself is gone by now
                found += str(file.readlink()).startswith("socket:")
    return found


def _show_the_tracer() -> None:
    """Name an address of this machine without sending anything; a tracer that misses this sees nothing at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shown:
        shown.connect(("127.0.0.1", CONTROL_PORT))


def _is_stopped_in_python() -> bool:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
            outside.connect((OUTSIDE, 9))
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _is_stopped_in_c() -> bool:
    """Ask the C library for a socket, past everything that Python could see."""
    library = ctypes.CDLL(None, use_errno=True)
    number = library.socket(int(socket.AF_INET), int(socket.SOCK_DGRAM), 0)
    if number >= 0:
        library.close(number)
    return number < 0


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer_alone(Path(sys.argv[1]), guarded="--unguarded" not in sys.argv)) + "\n")
