"""The entry point: help, speed, exit codes, and one line for every failure."""

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from handlens import __version__
from handlens.cli import main as entry
from handlens.cli.main import COMMANDS, handlens, run

SOURCE = Path(entry.__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(SOURCE)}


def shell(*args: str, **options) -> subprocess.CompletedProcess:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "handlens.cli.main", *args]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, check=False, **options)


def failure(capsys: pytest.CaptureFixture, *args: str) -> tuple[int, str]:
    """Return exit code and the one line on stderr; stdout stays empty."""
    code = run(args)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1
    return code, err.rstrip("\n")


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"handlens {__version__}\n"
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.index('handlens ask examples/receipt.png "What is the total?"') < text.index("Options:")
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_opens_with_an_example(name, capsys):
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.strip() for line in text.splitlines() if line.startswith(f"  handlens {name}")]
    assert examples
    assert text.index(examples[0]) < text.index("Options:")


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_the_examples_exist(name):
    """An example in a help text names only options that its command, or the command below it, has."""
    command = handlens.get_command(click.Context(handlens), name)
    for line in command.help.splitlines():
        words = line.split("handlens ", 1)[-1].split() if "handlens " in line else []
        used = {word for word in words if word[:2] == "--"}
        assert used <= {option for param in below(command, words).params for option in param.opts}, line


def below(command: click.Command, words: list[str]) -> click.Command:
    """Return the command that a line is for."""
    if isinstance(command, click.Group) and len(words) > 1:
        return command.get_command(click.Context(command), words[1]) or command
    if words[:2] == ["train", "finetune"]:
        from handlens.cli.finetune import finetune

        return finetune
    return command


def test_help_is_quick_and_imports_neither_numpy_nor_pillow():
    fastest = min(timed_help() for _ in range(3))
    assert fastest < 1.0  # 0.2 s is the aim on a free core; a loaded machine needs room
    probe = "import sys; from handlens.cli.main import run; run(['--help']); "
    probe += "print(sorted({'numpy', 'PIL', 'rich', 'tokenizers', 'torch', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=ENV, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def timed_help() -> float:
    begin = time.perf_counter()
    assert shell("--help").returncode == 0
    return time.perf_counter() - begin


def test_no_command_is_wrong_usage_and_shows_help(capsys):
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_wrong_usage(capsys):
    assert failure(capsys, "slies") == (
        2, "handlens: unknown command 'slies'; did you mean 'slices'? (see: handlens --help)",
    )  # fmt: skip
    assert failure(capsys, "xyzzy") == (
        2, f"handlens: unknown command 'xyzzy'; known: {', '.join(COMMANDS)} (see: handlens --help)",
    )  # fmt: skip
    assert failure(capsys, "slices", "--sise", "3x3") == (
        2, "handlens slices: unknown option '--sise'; did you mean '--size'? (see: handlens slices --help)",
    )  # fmt: skip
    code, line = failure(capsys, "ask", "a.png", "Why?", "--max-slices", "many")
    assert (code, line.startswith("handlens ask: invalid value for '--max-slices': 'many' is not a valid integer")) == (
        2, True,
    )  # fmt: skip
    assert failure(capsys, "train", "nano") == (
        2,
        "handlens train: missing option '--out'; name the folder of the run (see: handlens train --help)",
    )


def test_a_defect_is_one_line_unless_asked(capsys, monkeypatch):
    def broken() -> None:
        raise KeyError("lost")

    monkeypatch.setattr(entry.LazyGroup, "invoke", lambda *_: broken())
    code, line = failure(capsys, "slices", "--size", "1x1")
    assert code == 1
    assert "unexpected KeyError: 'lost'; this is a defect of handlens" in line
    monkeypatch.setenv("HANDLENS_DEBUG", "1")
    with pytest.raises(KeyError):
        run(["slices", "--size", "1x1"])


def test_debug_shows_the_traceback():
    plain = shell("slices", "nothing.png")
    assert plain.returncode == 1
    assert plain.stderr.count("\n") == 1
    debug = subprocess.run(
        [sys.executable, "-m", "handlens.cli.main", "slices", "nothing.png"],
        capture_output=True, text=True, env={**ENV, "HANDLENS_DEBUG": "1"}, check=False,
    )  # fmt: skip
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "nothing.png does not exist" in debug.stderr


def test_interrupt_is_130(capsys, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry.LazyGroup, "invoke", interrupted)
    assert run(["slices", "--size", "1x1"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes differ")
def test_a_reader_that_leaves_early_is_no_error():
    sizes = " ".join("--size 640x480" for _ in range(4000))
    command = f"{sys.executable} -m handlens.cli.main slices {sizes} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=ENV, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("640x480: ")


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory")])
def test_too_little_memory_is_one_line_with_a_way_out(error, capsys, monkeypatch):
    def broken() -> None:
        raise error

    monkeypatch.setattr(entry.LazyGroup, "invoke", lambda *_: broken())
    code, line = failure(capsys, "slices", "--size", "1x1")
    assert code == 1
    assert line.startswith("handlens: there is too little memory; close other programs")
