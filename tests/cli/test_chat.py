"""``handlens chat`` fed from a pipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import handlens

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCE = Path(handlens.__file__).parents[1]


def talk(lines: str, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "handlens.cli.main", "chat", *args]
    return subprocess.run(
        command, input=lines, capture_output=True, text=True, check=False, timeout=120, env={"PYTHONPATH": str(SOURCE)}
    )


def test_turns_pictures_and_saving(tmp_path):
    file = tmp_path / "talk.json"
    said = (
        "How many?",
        "",
        f"/image {EXAMPLES / 'strip.png'}",
        "And here?",
        f"/save {file}",
        "/nothing",
        "/quit",
        "No.",
    )
    lines = "\n".join(said)
    done = talk(lines, str(EXAMPLES / "shapes.png"), "--max-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    turns = json.loads(file.read_text())["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert [part.get("name") for part in turns[2]["content"]] == ["strip.png", None]
    assert "unknown command '/nothing'; known: /help, /image, /quit, /save, /show" in done.stderr


@pytest.mark.parametrize("lines", ["/image none.png\n", "/save /none/talk.md\n"])
def test_what_fails_in_a_pipe_fails_the_command(lines):
    done = talk(lines)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("handlens chat: ")
