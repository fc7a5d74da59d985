"""Run one configuration in a child process and say what came of it, also when it crashed.

Boundary: starts ``measure/child.py``; knows no engine. A crash, a stuck run and an error are answers, not failures.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlens.engine.setup import Setup
from handlens.errors import ModelError, SettingError

QUESTION = "What is written in the picture?"
SECOND_QUESTION = "Which number stands at the end?"
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run does."""

    bundle: Path
    setup: Setup = field(default_factory=Setup)
    images: tuple[Size | str, ...] = ((448, 448),)
    """Pictures: files, or sizes of drawn ones."""
    question: str = QUESTION
    second_question: str = ""
    max_tokens: int = 16
    """Tokens that are said, whatever they are."""
    max_encoded: int = 0
    """Slices that are really encoded; the rest repeat the last. 0 encodes all."""
    max_slices: int = 0
    """Most slices of a picture; 0 is the model's."""
    parts: tuple[str, ...] = ("vision", "language")
    width: int = 0
    """Width of made-up visual tokens where the vision half does not run."""
    mmproj: Path | None = None
    """Vision file of stock llama.cpp: measure that instead of our halves."""
    language: str = ""
    """Language file of the bundle that stock llama.cpp runs."""
    positions: int = 4096
    limit_seconds: float = 600.0

    def to_json(self) -> dict[str, Any]:
        """Return what the child reads."""
        return {
            "bundle": str(self.bundle), "setup": self.setup.to_json(), "images": list(self.images),
            "question": self.question, "second_question": self.second_question, "max_tokens": self.max_tokens,
            "max_encoded": self.max_encoded, "max_slices": self.max_slices, "parts": list(self.parts),
            "width": self.width, "mmproj": str(self.mmproj or ""), "language": self.language,
            "positions": self.positions,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of a job."""

    setup: Setup
    figures: dict[str, Any] | None
    """As ``measure/child.py`` prints them; None where the run did not end well."""
    trouble: str = ""
    """Why it did not, in one line."""

    @property
    def seconds_per_slice(self) -> float:
        """Median over the slices; the first warms up where there are several."""
        return _median(self._list("encode_seconds"))

    @property
    def encode_seconds(self) -> float:
        """Of all slices of the pictures."""
        return self.seconds_per_slice * (self.figures or {}).get("num_slices", 0)

    @property
    def prefill_seconds(self) -> float:
        """To read the prompt."""
        return self._seconds("prefill")

    @property
    def load_seconds(self) -> float:
        """Of both halves."""
        return self._seconds("load_vision") + self._seconds("load_language")

    @property
    def first_word_seconds(self) -> float:
        """Load, slice, encode and read the prompt."""
        return self.load_seconds + self._seconds("slice") + self.encode_seconds + self.prefill_seconds

    @property
    def tokens_per_second(self) -> float:
        """Of the answer; infinite where none was asked for."""
        step = _median(self._list("step_seconds"))
        return 1 / step if step else float("inf")

    @property
    def peak_bytes(self) -> int:
        """Most memory at any time."""
        return int((self.figures or {}).get("peak_bytes", 0))

    def _seconds(self, phase: str) -> float:
        return float((self.figures or {}).get("phases", {}).get(phase, {}).get("seconds", 0.0))

    def _list(self, name: str) -> Sequence[float]:
        return (self.figures or {}).get(name, [])


def _median(values: Sequence[float]) -> float:
    rest = values[1:] if len(values) > 2 else values
    return statistics.median(rest) if rest else 0.0


def run_trial(job: Job) -> Trial:
    """Run a job in a child process; never raises for what the child does."""
    command = [sys.executable, "-m", "handlens.measure.child"]
    source = str(Path(__file__).parents[2])
    paths = [source, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HANDLENS_NO_PROFILE": "1"}
    environment.pop("HANDLENS_DEBUG", None)
    try:
        done = subprocess.run(
            command, input=json.dumps(job.to_json()), capture_output=True, text=True, timeout=job.limit_seconds,
            env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Trial(setup=job.setup, figures=None, trouble=f"took longer than {job.limit_seconds:.0f} s")
    if done.returncode == 0:
        try:
            return Trial(setup=job.setup, figures=json.loads(done.stdout))
        except ValueError:
            return Trial(setup=job.setup, figures=None, trouble="printed no figures")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Trial(setup=job.setup, figures=None, trouble=f"crashed ({name}{_hint(name)})")
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    trouble = lines[-1].removeprefix("handlens.errors.") if lines else f"ended with code {done.returncode}"
    return Trial(setup=job.setup, figures=None, trouble=trouble)


def require(trial: Trial) -> dict[str, Any]:
    """Return the figures of a run that has to work.

    Raises:
        ModelError: it did not.
    """
    if trial.figures is None:
        raise ModelError(f"the run with {trial.setup.describe()} failed: {trial.trouble}")
    return trial.figures


def parse_size(text: str) -> Size:
    """Return width and height of ``4032x3024``.

    Raises:
        SettingError: it is no size.

    >>> parse_size("4032x3024")
    (4032, 3024)
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise SettingError(f"'{text}' is no picture size; give width and height in pixels, for example 4032x3024")
    return int(width), int(height)


def _hint(name: str) -> str:
    return {"SIGKILL": ": out of memory", "SIGILL": ": an instruction this processor lacks"}.get(name, "")
