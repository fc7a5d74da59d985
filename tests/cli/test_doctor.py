"""``handlens doctor``: what it finds, what it proves, and what its report does not tell."""

import getpass
import json
import platform
import shutil
from pathlib import Path

import pytest

from handlens import PACKAGED
from handlens.cli.doctor import without_paths
from handlens.cli.main import run
from handlens.measure import privacy
from handlens.measure.privacy import Kept, check_privacy, is_outside, network_calls, run_alone


def test_it_looks_at_everything_and_exits_with_0(tmp_path: Path, capsys):
    report = tmp_path / "doctor.md"
    assert run(["doctor", "--json", "--report", str(report)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    checks = {check["name"]: check for check in found["checks"]}
    assert list(checks) == [
        "system", "instruction set", "memory", "cores", "temperature", "disk", "versions", "vision engine",
        "language engine", "bundle", "room for the model", "settings", "known pictures",
    ]  # fmt: skip
    assert checks["bundle"]["facts"]["sha256"]["vision.onnx"]
    assert len(checks["known pictures"]["facts"]["stations"]) >= 4
    text = report.read_text()
    for secret in (str(Path.home()), str(PACKAGED["nano"]), str(tmp_path), platform.node()):
        assert secret not in text


def test_a_report_names_no_path_no_user_and_no_machine():
    said = {
        "a": [f"{Path.home()}/secret plans/x.png is damaged", "/srv/private/models/nano.bundle has no manifest.json"],
        "b": f"run by {getpass.getuser()} on {platform.node()}", "c": 1.5,
        "d": r"C:\Users\someone\pictures\tax.png is missing",
    }  # fmt: skip
    text = json.dumps(without_paths(said, Path("/srv/private/models/nano.bundle")))
    for secret in (str(Path.home()), "/srv", "private", "someone", "Users"):
        assert secret not in text
    if len(platform.node()) > 2:
        assert platform.node() not in text
    assert "nano.bundle" in text
    assert "1.5" in text


def test_a_damaged_bundle_and_a_wrong_name(tmp_path: Path, capsys):
    folder = Path(shutil.copytree(PACKAGED["nano"], tmp_path / "mine"))
    data = bytearray((folder / "vision.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "vision.onnx").write_bytes(data)
    assert run(["doctor", str(folder)]) == 1
    said = capsys.readouterr()
    assert "FAIL bundle: " in said.out
    assert "vision.onnx is damaged: its sha256 begins" in said.out
    assert said.err.strip().splitlines()[-1].endswith("1 do not work, 0 with a warning, 1 not known here") or (
        "1 do not work" in said.err
    )
    assert run(["doctor", "nanu"]) == 1
    assert "unknown model 'nanu'; did you mean 'nano'?" in capsys.readouterr().err
    assert run(["doctor", "--privat"]) == 2
    assert "did you mean '--privacy'?" in capsys.readouterr().err


# ---- privacy ---------------------------------------------------------------------------------------------------------


def test_the_proof_holds_for_the_shipped_model(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(privacy, "kept_files", list)  # not those of whoever runs the tests
    checks = {check.name: check for check in check_privacy(PACKAGED["nano"])}
    assert list(checks) == ["network guard", "answers without a network", "traced system calls", "telemetry"]
    assert checks["network guard"].facts["python_is_stopped"] is True
    assert "0 addresses tried, 0 sockets held, no file written" in checks["answers without a network"].found
    assert checks["answers without a network"].status == "ok"
    traced = checks["traced system calls"]
    if traced.status != "skip":
        assert traced.found == "an unguarded process made 0 network calls, 0 of them could leave this machine"


def test_a_call_that_leaves_the_machine_is_found():
    log = """
12 socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3
12 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1 EINPROGRESS
[pid 13] connect(4, {sa_family=AF_INET6, sin6_port=htons(80), inet_pton(AF_INET6, "::1", &sin6_addr)}, 28) = 0
[pid 13] connect(5, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT
[pid 13] socketpair(AF_UNIX, SOCK_STREAM, 0, [6, 7]) = 0
[pid 13] sendto(3, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("8.8.8.8")}, 16) = 1
"""
    calls = network_calls(log)
    assert len(calls) == 5
    assert [is_outside(call) for call in calls] == [True, True, False, False, True]


def test_a_process_that_fails_is_no_proof(tmp_path: Path):
    from handlens.errors import ModelError

    with pytest.raises(ModelError, match="the process that answers without a network ended"):
        run_alone([], tmp_path)


def test_rights_of_what_is_kept(tmp_path: Path):
    folder = tmp_path / "visual-tokens"
    folder.mkdir(mode=0o700)
    (folder / "a.npy").write_bytes(b"x" * 100)
    (folder / "a.npy").chmod(0o644)
    kept = Kept(what="visual tokens", path=folder, about_pictures=True)
    assert (kept.num_bytes, kept.open_paths) == (100, [])  # nobody gets into the folder
    folder.chmod(0o755)
    assert kept.open_paths == [folder, folder / "a.npy"]
    check = privacy._check_kept(kept)
    assert (check.status, check.advice) == ("fail", f"chmod -R go-rwx {folder}")
