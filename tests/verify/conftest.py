"""The shipped reference of 2.6, a whole one where it is at hand, and a nano-like model folder with its tokenizer."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHOLE = ROOT.parent / "shared" / "golden"
OURS = ROOT / "tests" / "golden"


def golden(version: str) -> Path:
    """Return the folder of a recorded reference, whole where it is at hand."""
    for folder in (WHOLE / version, OURS / version):
        if (folder / "expected.json").is_file() and (folder / "config.json").is_file():
            return folder
    pytest.skip(f"the reference of {version} is not at hand")
    raise AssertionError


@pytest.fixture(scope="session")
def reference() -> Path:
    return golden("2.6")
