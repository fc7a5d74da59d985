"""``--keep``, ``--no-cache``, ``--no-profile`` and ``--no-lookup`` of the commands that open a model."""

import json
from pathlib import Path

import pytest

from handlens import PACKAGED
from handlens.cli.main import run
from handlens.engine.setup import Setup, save_profile

RECEIPT = Path(__file__).parents[2] / "examples" / "receipt.png"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDLENS_NO_CACHE")
    monkeypatch.delenv("HANDLENS_NO_PROFILE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def asked(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    command = ["ask", str(RECEIPT), "What is the total?", "--max-slices", "2", "--max-tokens", "4", "--json", *options]
    assert run(command) == 0
    return json.loads(capsys.readouterr().out)


def test_the_second_question_never_encodes_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, second = asked(capsys), asked(capsys)
    assert "encode" in first["timings"] and "load_vision" in first["timings"]
    assert "encode" not in second["timings"] and "load_vision" not in second["timings"]
    assert second["answer"] == first["answer"] and second["tokens"] == first["tokens"]
    assert "encode" in asked(capsys, "--no-cache")["timings"]


def test_without_a_cache_nothing_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked(capsys, "--no-cache")
    assert not (tmp_path / "cache").exists()


def test_a_profile_is_used_until_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    save_profile(PACKAGED["nano"], Setup(language="language-gone.gguf"), {})
    command = ["ask", str(RECEIPT), "What?", "--max-slices", "1", "--max-tokens", "1"]
    assert run(command) == 1
    assert "has no file 'language-gone.gguf'" in capsys.readouterr().err
    assert run([*command, "--no-profile"]) == 0


def test_a_run_says_that_it_uses_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    save_profile(PACKAGED["nano"], Setup(micro_batch=128, mmap=True), {})
    command = ["ask", str(RECEIPT), "What?", "--max-slices", "1", "--max-tokens", "1", "--no-cache", "--show"]
    told = "settings of `handlens tune`: micro_batch 128, mmap True"
    assert run(command) == 0 and told in capsys.readouterr().err
    assert run([*command, "--no-profile"]) == 0 and "handlens tune" not in capsys.readouterr().err
    assert asked(capsys, "--no-cache", "--max-tokens", "1")["settings"] == "micro_batch 128, mmap True"
    assert run(["plan", "nano", "--device", "m1"]) == 0 and told in capsys.readouterr().out
    assert run(["plan", "nano", "--device", "m1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {"micro_batch": 128, "mmap": True}


def test_kept_halves_answer_the_same_and_so_does_an_answer_without_guesses(capsys: pytest.CaptureFixture[str]) -> None:
    expected = asked(capsys, "--no-cache")["tokens"]
    assert asked(capsys, "--keep", "--no-cache")["tokens"] == expected
    without = asked(capsys, "--no-cache", "--no-lookup", "--max-tokens", "40")["answer"]
    save_profile(PACKAGED["nano"], Setup(lookup=15), {})
    assert asked(capsys, "--no-cache", "--max-tokens", "40")["answer"] == without
