"""Memory of this process: what is taken shows, what is given back goes."""

import sys

import numpy as np
import pytest

from handlens.engine import memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, so it runs on Linux, as CI does")


@linux
def test_taken_memory_shows_in_the_peak_until_it_is_reset() -> None:
    memory.give_back()
    memory.reset_peak()
    before = memory.peak_bytes()
    block = np.ones(80_000_000, dtype=np.uint8)
    assert memory.peak_bytes() - before > 60_000_000  # other pages may be taken away meanwhile
    del block
    memory.give_back()
    if memory.reset_peak():
        assert memory.peak_bytes() - before < 30_000_000


def test_available_is_no_more_than_total() -> None:
    assert 0 < memory.available_bytes() <= memory.total_bytes()


@linux
def test_the_limit_of_the_shell_counts() -> None:
    import subprocess

    script = "from handlens.engine.memory import total_bytes; print(total_bytes())"
    command = f"ulimit -v 4000000; exec {sys.executable} -c '{script}'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd="src")
    assert int(done.stdout) == 4_000_000 * 1024
