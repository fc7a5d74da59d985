"""Prove that pictures stay here: answers without a network, a trace of every network call, caches with their rights.

Boundary: starts processes that answer the known pictures of one bundle; reads folders of this user; changes nothing.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.errors import ModelError
from handlens.measure.doctor import Check
from handlens.measure.telemetry import SWITCHES, left_on

LIMIT_SECONDS = 600.0
NETWORK_CALL = re.compile(r"\b(socket|connect|bind|listen|sendto|sendmsg|sendmmsg|getpeername)\((.*)")
OUTSIDE_FAMILY = re.compile(r"AF_INET6?\b|AF_PACKET|AF_NETLINK|AF_VSOCK|AF_BLUETOOTH")
CONTROL = re.compile(r'connect\(.*htons\(9\).*"127\.0\.0\.1"')
"""What ``alone.py`` does to show that the trace works."""
LOOPBACK = re.compile(r'inet_addr\("127\.|"::1"')


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A folder or file of Handlens outside its own installation."""

    what: str
    path: Path
    about_pictures: bool
    """True where it holds something that was computed from pictures of the user."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        files = [self.path] if self.path.is_file() else [file for file in self.path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)

    @property
    def open_paths(self) -> list[Path]:
        """Return what other users of this machine could read or write, the folder first."""
        inside = sorted(self.path.rglob("*")) if self.path.is_dir() else []
        if self.path.is_dir() and not _is_open(self.path):
            return []  # nobody else gets in
        return [path for path in (self.path, *inside) if _is_open(path)]


def kept_files() -> list[Kept]:
    """Return everything that Handlens keeps on this machine, whether it is there or not."""
    from platformdirs import user_cache_path

    from handlens.engine.setup import profile_file
    from handlens.engine.visual_cache import cache_folder
    from handlens.measure.history import history_file
    from handlens.models.store import store_folder

    profiles = profile_file(_shipped()).parent
    return [
        Kept(what="visual tokens of slices", path=cache_folder(), about_pictures=True),
        Kept(what="fetched and made models", path=store_folder(), about_pictures=False),
        Kept(what="settings found by tune", path=profiles, about_pictures=False),
        Kept(what="rates of this machine", path=user_cache_path("handlens") / "this-device.json", about_pictures=False),
        Kept(what="sizes and seconds of runs", path=history_file(), about_pictures=False),
    ]


def check_privacy(folder: Path) -> list[Check]:
    """Return the proof: answers without a network, traced calls, telemetry, files."""
    return [*_check_guarded(folder), _check_traced(folder), _check_telemetry(), *map(_check_kept, kept_files())]


def _check_guarded(folder: Path) -> list[Check]:
    facts = run_alone([], folder)
    if not facts["system_refuses"]:
        guard = Check(
            name="network guard", status="warn", facts=facts,
            found="Python is kept from the network; this system cannot refuse sockets to libraries in C",
            advice="run it under a firewall, or without a network, to be sure of those too",
        )  # fmt: skip
    else:
        holds = facts["python_is_stopped"] and facts["c_is_stopped"]
        guard = Check(
            name="network guard", status="ok" if holds else "fail", facts=facts,
            found="sockets are refused to Python and to libraries in C" if holds else "a socket could be opened",
        )  # fmt: skip
    silent = not facts["tried"] and not facts["sockets"] and not facts["different"]
    files = ", ".join(Path(name).name for name in facts["written"])
    answers = Check(
        name="answers without a network", status="ok" if silent else "fail",
        found=f"{facts['answered']} checks of known pictures done; {len(facts['tried'])} addresses tried, "
        f"{facts['sockets']} sockets held, {f'files written: {files}' if files else 'no file written'}",
        advice="" if silent else f"tried: {facts['tried']}; different: {facts['different']}; please report this",
    )  # fmt: skip
    return [guard, answers]


def _check_traced(folder: Path) -> Check:
    """Let the system write down every network call of a process that nothing holds back."""
    name = "traced system calls"
    if shutil.which("strace") is None:
        return Check(
            name=name, status="skip", found="strace is not installed", advice="install strace to see the trace"
        )
    with tempfile.TemporaryDirectory(prefix="handlens-trace-") as place:
        log = Path(place) / "calls"
        try:
            run_alone(["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(log)], folder, "--unguarded")
        except ModelError as cause:
            return Check(name=name, status="skip", found=f"strace could not trace ({cause})")
        calls = network_calls(log.read_text(encoding="utf-8", errors="replace"))
    shown = [place for place, call in enumerate(calls) if CONTROL.search(call)]
    if not shown:
        return Check(name=name, status="skip", found="strace wrote down no call, not even the one made to be seen")
    del calls[max(0, shown[0] - 1) : shown[0] + 1]  # that call and the socket it needed
    outside = [call for call in calls if is_outside(call)]
    return Check(
        name=name, status="fail" if outside else "ok", facts={"calls": calls[:50]},
        found=f"an unguarded process made {len(calls)} network calls, {len(outside)} of them could leave this machine",
        advice=f"the first was {outside[0]}; please report this" if outside else "",
    )  # fmt: skip


def network_calls(log: str) -> list[str]:
    """Return the calls of a log of strace that open, name or use a socket."""
    return [match.group(0) for line in log.splitlines() if (match := NETWORK_CALL.search(line))]


def is_outside(call: str) -> bool:
    """True for a call that can reach another machine: another family than sockets of files, and not loopback.

    >>> is_outside('connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16)')
    True
    >>> is_outside('connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16)')
    False
    >>> is_outside('socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = 3'), is_outside('socket(AF_INET, SOCK_DGRAM, 0) = 3')
    (False, True)
    """
    return bool(OUTSIDE_FAMILY.search(call)) and not LOOPBACK.search(call)


def run_alone(before: list[str], folder: Path, *options: str) -> dict[str, Any]:
    """Answer the known pictures in a process of their own and return what it reports.

    Raises:
        ModelError: it ended without a report.
    """
    command = [*before, sys.executable, "-m", "handlens.measure.alone", str(folder), *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"no answer within {LIMIT_SECONDS:.0f} s without a network") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"the process that answers without a network ended: {last}")
    return json.loads(lines[-1])


def _check_telemetry() -> Check:
    on = left_on()
    return Check(
        name="telemetry", status="fail" if on else "ok",
        found="Handlens has none; libraries are told to send nothing: " + ", ".join(SWITCHES)
        if not on else f"{', '.join(on)} set by you, so that a library may send usage data",
        advice=f"unset {on[0]}" if on else "",
    )  # fmt: skip


def _check_kept(kept: Kept) -> Check:
    from handlens.engine.memory import human

    if not kept.path.exists():
        return Check(name=kept.what, status="ok", found=f"nothing kept ({kept.path})", facts={"bytes": 0})
    readers = kept.open_paths
    content = "from your pictures" if kept.about_pictures else "nothing from your pictures"
    rights = f"others may read {len(readers)} of its files and folders" if readers else "only you may read it"
    mode = stat.filemode(kept.path.stat().st_mode)
    return Check(
        name=kept.what, status="fail" if readers and kept.about_pictures else "ok",
        found=f"{human(kept.num_bytes)} in {kept.path} ({mode}), {content}; {rights}",
        advice=f"chmod -R go-rwx {kept.path}" if readers else "", facts={"bytes": kept.num_bytes, "mode": mode},
    )  # fmt: skip


def _is_open(path: Path) -> bool:
    try:
        return bool(path.lstat().st_mode & 0o077) and not path.is_symlink() and os.name == "posix"
    except OSError:
        return False


def _shipped() -> Path:
    from handlens import PACKAGED

    return PACKAGED["nano"]
