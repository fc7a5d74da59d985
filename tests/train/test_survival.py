"""What a run survives: kills at any moment, signals, a full disk, a damaged shard, a loss that is not a number.

Each run is the command line in a forked process, so that no test waits for imports.
"""

import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace

import pytest
import torch

from handlens.cli.main import run
from handlens.data.shards import write_shards
from handlens.train import choose
from handlens.train.learner import Learner

PHASES = ("vision", "warmup", "sft")


class Process:
    """``handlens train ...`` in a child."""

    def __init__(self, words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> None:
        self.log = log
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads; the child uses one
            self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                sys.stdout = sys.stderr = log.open("w", buffering=1)
                torch.set_num_threads(1)
                before()
                os._exit(run(["train", *words]))
            finally:
                os._exit(99)

    def wait(self) -> int:
        """Return the exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def brief(tiny, monkeypatch) -> None:
    """The recipe ``tiny`` with steps enough to be hit, and a checkpoint after each."""
    longer = replace(
        tiny,
        phases=tuple(replace(phase, steps=4, pictures_per_step=1) for phase in tiny.phases),
        checkpoint_seconds=0.0,
        report_steps=1,
    )
    module = SimpleNamespace(recipe=lambda: longer, model=choose.RECIPES["tiny"].model)
    monkeypatch.setitem(choose.RECIPES, "tiny", module)


@pytest.fixture
def start(tmp_path, vocabulary, brief) -> Callable[..., Process]:
    """Start a run in a folder of that name."""

    def begin(name: str, *words: str, before: Callable[[], None] = lambda: None) -> Process:
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            copyfile(vocabulary, folder / "tokenizer.json")
        recipe, rest = (words[0], words[1:]) if words and words[0].startswith("tiny") else ("tiny", words)
        return Process([recipe, "--out", str(folder), *rest], tmp_path / f"{name}.log", before)

    return begin


def weights(folder: Path) -> list[bytes]:
    return [(folder / phase / "model.safetensors").read_bytes() for phase in PHASES]


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def kill_at_random(start, tmp_path: Path, kills: int) -> None:
    began = time.monotonic()
    straight = start("straight")
    assert straight.wait() == 0, straight.said
    duration = time.monotonic() - began
    draw = random.Random(kills)
    for _ in range(kills):
        process = start("hit")
        time.sleep(draw.uniform(0.0, 0.8 * duration))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    last = start("hit")
    assert last.wait() == 0, last.said
    assert weights(tmp_path / "hit") == weights(tmp_path / "straight")
    for phase in PHASES:
        left = sorted(path.name for path in (tmp_path / "hit" / phase).iterdir())
        assert left == [
            "README.md", "config.json", "ledger.json", "log.jsonl", "model.safetensors", "phase.json", "state",
            "tokenizer.json",
        ]  # fmt: skip


def test_two_kills_leave_no_trace(start, tmp_path):
    kill_at_random(start, tmp_path, 2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills_leave_no_trace(start, tmp_path):
    kill_at_random(start, tmp_path, 20)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_is_answered_with_a_checkpoint(start, tmp_path, number, code):
    process = start("asked", "tiny:vision")
    state = tmp_path / "asked" / "vision" / "state"
    wait_for(lambda: state.is_dir() and any(state.glob("step-*")))
    began = time.monotonic()
    os.killpg(process.pid, number)
    assert process.wait() == code
    assert time.monotonic() - began < 30.0  # the grace that schedulers give
    assert process.said == (
        f"handlens train: stopped by {number.name} in phase vision; its checkpoint is in {tmp_path}/asked/vision; "
        "the same command goes on\n"
    )
    assert not (tmp_path / "asked" / "vision" / "model.safetensors").exists()
    again = start("asked", "tiny:vision")
    assert again.wait() == 0
    assert again.said == f"{tmp_path}/asked/vision\n"


def in_session(leader: int) -> list[int]:
    """Return the processes of a session that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def step_without_end() -> None:
    """Let the second step of the run take two minutes."""
    find, calls = Learner.slopes, iter(range(99))

    def slopes(self, batches):
        if next(calls) == 2:  # the first counts operations, the second is step 1
            time.sleep(120.0)
        return find(self, batches)

    Learner.slopes = slopes


def test_a_step_longer_than_the_grace_is_given_up(start, tmp_path):
    process = start("asked", "tiny:vision", "--grace", "3", before=step_without_end)
    state = tmp_path / "asked" / "vision" / "state"
    wait_for(lambda: (state / "step-00000001").is_dir())
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    assert time.monotonic() - began < 6.0
    assert process.said.startswith("handlens train: stopped by SIGTERM in phase vision; its checkpoint is in ")
    assert process.said.count("\n") == 1
    assert [path.name for path in state.glob("step-*")] == ["step-00000001"]
    assert start("asked", "tiny:vision").wait() == 0
    assert start("straight", "tiny:vision").wait() == 0
    files = [tmp_path / name / "vision" / "model.safetensors" for name in ("asked", "straight")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_second_signal_stops_at_once(start, tmp_path):
    process = start("asked", "tiny:vision", before=step_without_end)
    wait_for(lambda: (tmp_path / "asked" / "vision" / "state" / "step-00000001").is_dir())
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert not process.is_over()
    os.kill(process.pid, signal.SIGTERM)
    began = time.monotonic()
    assert process.wait() == -signal.SIGTERM
    assert time.monotonic() - began < 3.0
    wait_for(lambda: not in_session(process.pid), 30.0)  # nor does the process that makes batches stay behind


def test_a_full_disk_is_told_and_loses_nothing(start, tmp_path):
    """A limit on the size of files stops the writing half way, as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    full = start("full", "tiny:vision", before=limit)
    assert full.wait() == 1
    (line,) = full.said.splitlines()
    assert line.startswith(f"handlens train: cannot write the checkpoint of step 1 to {tmp_path}/full/vision/state: ")
    assert line.endswith("; free some space and run the same command again")
    assert list((tmp_path / "full" / "vision" / "state").iterdir()) == []
    assert start("full", "tiny:vision").wait() == 0
    assert start("whole", "tiny:vision").wait() == 0
    names = [tmp_path / name / "vision" / "model.safetensors" for name in ("full", "whole")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_damaged_shard_is_named_and_replaced(start, tmp_path):
    manifest = write_shards("labels", 6, 3, tmp_path / "shards", level=0.0)
    shard = manifest.with_name("000000.tar")
    good = shard.read_bytes()
    words = ("tiny:vision", "--data", str(tmp_path / "shards"), "--set", "vision.steps=8")
    assert start("untouched", *words).wait() == 0

    middle = len(good) // 2
    shard.write_bytes(good[:middle] + bytes(byte ^ 0xFF for byte in good[middle : middle + 20]) + good[middle + 20 :])
    told = start("damaged", *words)
    assert told.wait() == 1
    (line,) = told.said.splitlines()
    assert line.startswith(f"handlens train: {shard}: record labels-train-3-")
    assert line.endswith("; copy the shard again or generate it again, then run the same command")
    shard.write_bytes(good)
    assert start("damaged", *words).wait() == 0
    files = [tmp_path / name / "vision" / "model.safetensors" for name in ("damaged", "untouched")]
    assert files[0].read_bytes() == files[1].read_bytes()

    shard.write_bytes(good[:middle])
    cut = start("cut", *words)
    assert cut.wait() == 1
    assert cut.said.startswith(f"handlens train: {shard} is damaged (") and cut.said.count("\n") == 1


def test_a_loss_that_is_not_a_number_is_told(start, tmp_path):
    process = start("nan", "tiny:sft", "--set", "sft.rate=1e25")
    assert process.wait() == 1
    (line,) = process.said.splitlines()
    assert line.startswith("handlens train: phase sft: the ")
    assert line.endswith("lower sft.rate (it is 1e+25) and run again")


def test_two_runs_in_one_folder_are_refused(start, tmp_path):
    first = start("shared", "tiny:vision", "--set", "vision.steps=500")
    wait_for(lambda: (tmp_path / "shared" / "vision" / "state").is_dir())
    second = Process(["tiny:vision", "--out", str(tmp_path / "shared")], tmp_path / "second.log")
    assert second.wait() == 1
    assert second.said == (
        f"handlens train: another process trains in {tmp_path}/shared; "
        "wait for it, stop it, or give another --out\n"
    )  # fmt: skip
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
