"""The reference of 2.6: the whole one where it is at hand, else the packed one, unpacked."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference(golden: Callable[[str], Path]) -> Path:
    return golden("2.6")
