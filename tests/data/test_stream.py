"""A stream goes on exactly: after a kill, with other workers, in any epoch."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlens.data.pack import Budget, Length
from handlens.data.spread import spread_over
from handlens.data.stream import Position, Stream, _permuted, index_shards, measured_by, open_sources
from handlens.errors import DataError


def measure(sample) -> Length:
    """Rooms of many sizes, known without a tokenizer."""
    return Length(key=sample.key, tokens=10 + 7 * (sum(sample.key.encode()) % 9), slices=1)


@pytest.fixture
def stream(write, samples) -> Stream:
    few = [replace(sample, key=f"few{n}") for n, sample in enumerate(samples(5))]
    many = [replace(sample, key=f"many{n}") for n, sample in enumerate(samples(12))]
    folders = {write(few, "shards", "few"): 1.0, write(many, "shards", "many"): 3.0}
    return Stream(sources=open_sources(folders), measure=measure, seed=5, budget=Budget(tokens=100, slices=4), window=9)


def keys(rows) -> list[tuple[str, ...]]:
    return [tuple(sample.key for sample in row.samples) for row in rows]


def test_it_goes_on_from_every_row(stream) -> None:
    whole = list(islice(stream.rows(), 24))
    for stop in (1, 7, 23):
        again = stream.rows(Position.from_json(whole[stop - 1].after.to_json()))
        assert keys(islice(again, 24 - stop)) == keys(whole[stop:])


def test_the_number_of_workers_changes_nothing(stream, target) -> None:
    stream = replace(stream, measure=measured_by(target), budget=Budget(tokens=400))
    alone = list(islice(stream.rows(), 6))
    with spread_over("local", 2) as spread:
        assert keys(islice(stream.rows(alone[1].after, spread=spread), 4)) == keys(alone[2:])


def test_samples_are_read_from_their_places(stream) -> None:
    row = next(stream.rows())
    assert all(sample.images[0].open().image.size == (120, 90) for sample in row.samples)
    assert all(sample.answers[0].startswith("a square") for sample in row.samples)


def test_shares_and_epochs_are_kept(stream) -> None:
    rows = list(islice(stream.rows(), 150))
    drawn = Counter(sample.key for row in rows for sample in row.samples)
    share = sum(count for key, count in drawn.items() if key.startswith("many")) / drawn.total()
    assert 0.68 < share < 0.82
    # No sample is drawn twice before all were, so counts differ by the open epoch and by what waits for a row.
    for source, name in enumerate(("few", "many")):
        counts = [count for key, count in drawn.items() if key.startswith(name)]
        waiting = sum(one == source for one, _ in rows[-1].after.waiting)
        assert len(counts) == {"few": 5, "many": 12}[name]
        assert max(counts) - min(counts) <= 1 + waiting
    orders = [stream.entry(1, number).files for number in range(24)]
    assert sorted(orders[:12]) == sorted(orders[12:]) != orders[:12]
    assert orders[:12] != orders[12:]


@given(st.integers(1, 200), st.text(max_size=3))
def test_every_epoch_is_one_permutation(size: int, seed: str) -> None:
    assert sorted(_permuted(place, size, seed) for place in range(size)) == list(range(size))


def test_a_position_of_another_stream_is_refused(stream) -> None:
    other = replace(stream, seed=6)
    with pytest.raises(DataError, match="give the same sources, shares, seed and budget"):
        next(other.rows(next(stream.rows()).after))
    with pytest.raises(DataError, match="no position of a stream"):
        Position.from_json("[1]")


def test_what_fits_no_row_never_blocks(stream) -> None:
    with pytest.raises(DataError, match="no sample fits a row"):
        next(replace(stream, budget=Budget(tokens=3)).rows())


def test_a_folder_without_shards_is_told(tmp_path) -> None:
    with pytest.raises(DataError, match="handlens data convert"):
        index_shards(tmp_path)


READER = """
import sys, time
from pathlib import Path
from handlens.data.pack import Budget, Length
from handlens.data.spread import spread_over
from handlens.data.stream import Position, Stream, open_sources

def measure(sample):
    return Length(key=sample.key, tokens=10 + 7 * (sum(sample.key.encode()) % 9), slices=1)

if __name__ == "__main__":
    folder, jobs, wanted = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stream = Stream(
        sources=open_sources({folder / "few": 1.0, folder / "many": 3.0}), measure=measure, seed=5,
        budget=Budget(tokens=100, slices=4), window=9,
    )
    state, log = folder / "state.json", folder / "log.txt"
    start = Position.from_json(state.read_text()) if state.exists() else None
    with spread_over("local", jobs) as spread:
        for row in stream.rows(start, spread=spread):
            with log.open("a") as file:
                file.write(f"{row.after.rows} {' '.join(sample.key for sample in row.samples)}\\n")
            part = state.with_suffix(".part")
            part.write_text(row.after.to_json())
            part.replace(state)
            if row.after.rows >= wanted:
                break
            time.sleep(0.02)
"""


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_kill_9_with_any_number_of_workers(stream, tmp_path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER)
    wanted = 300  # more than 15 x (1 + 2 + 3 + 4 + 5), so that every kill finds the reader at work
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for kill, jobs in enumerate((1, 2, 3, 1, 2)):
        reader = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(jobs), str(wanted)],
            env=environment,
            start_new_session=True,
        )
        before = (tmp_path / "log.txt").read_text().count("\n") if kill else 0
        while reader.poll() is None and (
            (tmp_path / "log.txt").read_text() if (tmp_path / "log.txt").exists() else ""
        ).count("\n") < before + 15 * (kill + 1):
            time.sleep(0.05)
        os.killpg(reader.pid, signal.SIGKILL)
        reader.wait()
    subprocess.run([sys.executable, str(script), str(tmp_path), "1", str(wanted)], env=environment, check=True)
    # a row may be logged twice when the kill fell between log and state; it must then be the same row
    logged: dict[int, set[str]] = {}
    for line in (tmp_path / "log.txt").read_text().splitlines():
        number, _, names = line.partition(" ")
        logged.setdefault(int(number), set()).add(names)
    assert sorted(logged) == list(range(1, wanted + 1))
    assert all(len(names) == 1 for names in logged.values())
    whole = replace(stream, sources=open_sources({tmp_path / "few": 1.0, tmp_path / "many": 3.0}))
    assert [" ".join(names) for names in keys(islice(whole.rows(), wanted))] == [
        next(iter(logged[number])) for number in range(1, wanted + 1)
    ]
