"""No word to another machine: every socket but loopback is refused inside this process, and what was tried is kept.

Boundary: Python's audit events, which see what Python code does; ``syscalls.py`` holds back libraries in C.
"""

import contextlib
import ipaddress
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from handlens.errors import SettingError

NO_SOCKETS = "HANDLENS_NO_SOCKETS"
"""Environment variable: 1 refuses every socket at the border to the system."""

EVENTS = {
    "socket.connect": 1, "socket.bind": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0, "socket.gethostbyaddr": 0,
}  # fmt: skip
"""Audit event -> place of the address or host among its values (docs.python.org, "Audit events table")."""


class NetworkForbidden(PermissionError):
    """Something tried to reach another machine after ``forbid_network``; a defect of Handlens or of a library."""


def forbid_network() -> list[dict[str, Any]]:
    """Refuse every address but loopback in this process, for good; return the list that receives what was tried.

    An audit hook cannot be removed, so call this in a process that needs no network until its end.
    """
    tried: list[dict[str, Any]] = []

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event not in EVENTS:
            return
        address = values[EVENTS[event]]
        is_allowed = is_local(address)
        tried.append({"event": event, "address": str(address), "allowed": is_allowed})
        if not is_allowed:
            raise _forbidden(event, address)

    sys.addaudithook(watch)
    return tried


_inside = threading.local()
_watching = threading.Lock()
"""Locked for good by the first ``alone``: an audit hook is added once and cannot be removed."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Refuse every address but loopback to Python code of this thread inside the block; all else is free.

    This is what a program that calls ``handlens.load`` gets: its own connections are its own business.
    """
    if _watching.acquire(blocking=False):
        sys.addaudithook(_refuse_inside)
    depth = getattr(_inside, "depth", 0)
    _inside.depth = depth + 1
    try:
        yield
    finally:
        _inside.depth = depth


def _refuse_inside(event: str, values: tuple[Any, ...]) -> None:
    depth: int = getattr(_inside, "depth", 0)
    if depth and event in EVENTS and not is_local(values[EVENTS[event]]):
        raise _forbidden(event, values[EVENTS[event]])


def _forbidden(event: str, address: Any) -> NetworkForbidden:
    return NetworkForbidden(f"{event} to {address}: only loopback is allowed while pictures are answered")


def seal() -> None:
    """Keep this process from other machines; ``HANDLENS_NO_SOCKETS=1`` refuses sockets to libraries in C too.

    Raises:
        SettingError: that is asked for where the system cannot do it.
    """
    from handlens.measure.syscalls import forbid_sockets

    forbid_network()
    if os.environ.get(NO_SOCKETS, "") not in ("", "0") and not forbid_sockets():
        raise SettingError(f"{NO_SOCKETS}=1 needs Linux with seccomp on x86-64 or arm64; unset it here")


def is_local(address: Any) -> bool:
    """True for an address that no other machine can have: loopback, or a file of this machine.

    >>> is_local(("127.0.0.1", 8000)), is_local(("::1", 80, 0, 0)), is_local("/run/socket"), is_local("localhost")
    (True, True, True, True)
    >>> is_local(("192.168.0.1", 80)), is_local("example.org"), is_local(("0.0.0.0", 80))
    (False, False, False)
    """
    if address is None:  # getaddrinfo(None) is this machine; sendmsg without an address uses an open connection
        return True
    host = address[0] if isinstance(address, tuple) and address else address
    text = host.decode("utf-8", "replace") if isinstance(host, bytes | bytearray) else str(host)
    if not isinstance(address, tuple) and text.startswith(("/", "\0")):  # a socket file, or an abstract one of Linux
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return text == "localhost"
