"""One process, several, and a cluster give the same, and a worker that dies takes nothing with it."""

import os
import subprocess
import sys

import pytest

from handlens.data.clean import Cleaning, Rules, clean
from handlens.data.spread import spread_over
from handlens.errors import SettingError


def test_an_unknown_engine_is_told() -> None:
    with pytest.raises(SettingError, match="known: local, ray"), spread_over("spark"):
        pass


RUNNER = """
import os, signal, sys
from pathlib import Path
from handlens.data.spread import spread_over

class DiesOnce:
    def __init__(self, mark, at):
        self.mark, self.at = mark, at
    def __call__(self, number):
        if number == self.at and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

if __name__ == "__main__":
    engine, mark = sys.argv[1], Path(sys.argv[2])
    with spread_over(engine, 2) as spread:
        assert list(spread(DiesOnce(mark, 70), range(300))) == [n * n for n in range(300)]
    assert mark.exists()
    print("whole")
"""


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.soak)])
@pytest.mark.timeout(600)
def test_a_killed_worker_loses_nothing(engine: str, tmp_path) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="needs a cluster: pip install 'handlens[ray]'")
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), engine, str(tmp_path / "mark")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.stdout.strip().endswith("whole"), done.stderr[-2000:]


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # ray opens sockets that it closes late
def test_a_cluster_cleans_like_one_process(samples) -> None:
    pytest.importorskip("ray", reason="needs a cluster: pip install 'handlens[ray]'")
    given = [*samples(40), *samples(3)]
    one, other = Cleaning(), Cleaning()
    alone = list(clean(given, Rules(), one))
    with spread_over("ray", 2) as spread:
        assert list(clean(given, Rules(), other, spread=spread)) == alone
    assert one.to_json() == other.to_json()
    assert one.tally.dropped == {"duplicate": 3}
