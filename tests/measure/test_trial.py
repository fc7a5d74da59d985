"""Runs in a process of their own: figures when all is well, one line when it is not."""

import dataclasses
import sys
from pathlib import Path

import pytest

from handlens import PACKAGED
from handlens.engine.setup import Setup
from handlens.errors import SettingError
from handlens.measure.trial import SECOND_QUESTION, Job, parse_size, require, run_trial


def test_a_run_of_nano_tells_every_phase() -> None:
    job = Job(bundle=PACKAGED["nano"], images=((224, 224),), max_tokens=4, second_question=SECOND_QUESTION)
    trial = run_trial(job)
    figures = require(trial)
    phases = figures["phases"]
    assert list(phases) == ["load_vision", "slice", "encode", "load_language", "prefill", "decode", "second_question"]
    assert all(20e6 < phase["peak_bytes"] < 1e9 and phase["seconds"] >= 0 for phase in phases.values())
    assert figures["num_slices"] == 1 and len(figures["encode_seconds"]) == 1 and len(figures["step_seconds"]) == 4
    assert 64 <= figures["reused_tokens"] < figures["prompt_tokens"]
    assert trial.peak_bytes == max(phase["peak_bytes"] for phase in phases.values())
    assert trial.first_word_seconds > 0 and trial.tokens_per_second > 0


def test_both_halves_take_the_memory_of_the_larger_one() -> None:
    """Within a tenth (arXiv 2408.01800, section 5); held side by side they would be beyond it."""
    job = Job(bundle=PACKAGED["nano"], images=((900, 900),), max_tokens=2, width=256)
    alone = []
    for part in ("vision", "language"):
        trial = run_trial(dataclasses.replace(job, parts=(part,)))
        alone.append(trial.peak_bytes)
        base = require(trial)["base_bytes"]
    assert run_trial(job).peak_bytes < 1.1 * max(alone) < sum(alone) - base


def test_an_error_of_the_child_is_one_line() -> None:
    trial = run_trial(Job(bundle=PACKAGED["nano"], setup=Setup(provider="cuda"), parts=("vision",)))
    assert trial.figures is None
    assert "provider 'cuda' is not in the installed onnxruntime" in trial.trouble and "\n" not in trial.trouble


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("kill -ILL $$", "crashed (SIGILL: an instruction this processor lacks)"),
        ("kill -SEGV $$", "crashed (SIGSEGV)"),
        ("kill -KILL $$", "crashed (SIGKILL: out of memory)"),
        ("sleep 5", "took longer than 1 s"),
        ("echo no figures", "printed no figures"),
        ("echo one >&2; echo the reason >&2; exit 3", "the reason"),
    ],
)
def test_a_crash_is_an_answer(script: str, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    trial = run_trial(Job(bundle=PACKAGED["nano"], limit_seconds=1.0 if "sleep" in script else 60.0))
    assert trial.figures is None and trial.trouble == trouble


@pytest.mark.parametrize("text", ["", "448", "448x", "0x448", "axb", "448x-1"])
def test_no_size(text: str) -> None:
    with pytest.raises(SettingError, match="is no picture size; give width and height in pixels"):
        parse_size(text)
