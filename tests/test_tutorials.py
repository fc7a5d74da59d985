"""The tutorials do what they say: their blocks run in order, in an empty folder with ``examples`` beside it.

Blocks after ``<!-- long -->`` take longer and run with ``--soak``.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"(<!-- long -->\n)?^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS = {"receipts": ["font_roboto", "pyarrow"], "serve": ["fastapi", "uvicorn", "openai"], "verify": ["torch"]}


def script_of(file: Path, *, whole: bool) -> str:
    """Return the blocks of a tutorial as one script of the shell."""
    parts = []
    for long, language, text in BLOCK.findall(file.read_text(encoding="utf-8")):
        if whole or not long:
            parts.append(f"python - <<'PYTHON'\n{text}PYTHON" if language == "python" else text.rstrip())
    return "\n".join(parts)


def run_in(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script where ``handlens`` and ``python`` are those of this checkout, and end what it leaves behind."""
    programs = folder / "programs"
    programs.mkdir()
    for name, words in {"handlens": f"{sys.executable} -m handlens.cli.main", "python": sys.executable}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / name).chmod(0o755)
    for name in ("examples", "src"):
        (folder / name).symlink_to(ROOT / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        script = script.replace("8000", str(free.getsockname()[1]))
    source = str(ROOT / "src")
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": source, "HANDLENS_NO_CACHE": "1"},
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=1500)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(script, process.returncode, output)


def check(file: Path, folder: Path, *, whole: bool) -> None:
    for module in NEEDS.get(file.stem, []):
        pytest.importorskip(module, reason=f"the tutorial needs {module}")
    for program in ("bash", "curl", "tar"):
        if shutil.which(program) is None:
            pytest.skip(f"the tutorial needs {program}")
    done = run_in(folder, script_of(file, whole=whole))
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_tutorial_has_blocks_that_are_run():
    assert {file.stem for file in TUTORIALS} >= {"receipts", "serve", "verify"}
    for file in TUTORIALS:
        assert len(BLOCK.findall(file.read_text(encoding="utf-8"))) >= 3, file.name
        for _, language, text in BLOCK.findall(file.read_text(encoding="utf-8")):
            if language == "python":
                compile(text, file.name, "exec")


def test_a_failing_line_fails(tmp_path):
    assert run_in(tmp_path, "true\nfalse\ntrue").returncode != 0


def test_the_first_steps_of_a_tutorial(tmp_path):
    # One tutorial as an example; the others take longer.
    check(ROOT / "docs" / "tutorials" / "serve.md", tmp_path, whole=False)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", TUTORIALS, ids=lambda file: file.stem)
def test_the_whole_tutorial(file, tmp_path):
    check(file, tmp_path, whole=True)
