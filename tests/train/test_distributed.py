"""Several processes learn what one process learns; a checkpoint of theirs is one of his.

Every second record has no picture, and one of two processes gets only those.
"""

import json
import os
import random
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import handlens
from handlens.errors import SettingError, TrainingError
from handlens.train.distributed import World, join_world, whole
from handlens.train.feed import IGNORED, Sample, build_sample
from handlens.train.loop import train_phase
from handlens.train.source import draw_generated

SOURCE = Path(handlens.__file__).parents[1]
STEPS = 3


@pytest.fixture
def phase(sft, request):
    return replace(
        sft, streams=2, steps=STEPS, pictures_per_step=1, slices_per_step=9, mixture={"scenes": 1.0},
        precision="float32", local_steps=getattr(request, "param", 1),
    )  # fmt: skip


@pytest.fixture
def start(fresh, config, tokenizer, phase, tmp_path) -> Callable[..., list[float]]:
    """Train in processes of a mode and return the loss of each step."""

    def draw(asked, own: random.Random, index: int, split: str) -> Sample:
        if index % 2 == 0:
            return build_sample(draw_generated(asked, own, index, split), asked, config, tokenizer, 112, own)
        ids = np.array([own.randrange(10, tokenizer.vocab_size) for _ in range(12)])
        targets = np.where(np.arange(12) > 5, ids, IGNORED)
        return Sample(
            patches=[], plans=(), labels=None, ids=ids, is_visual=np.zeros(12, dtype=bool), targets=targets,
            tasks=np.where(targets >= 0, 0, -1), task_names=("text",),
        )  # fmt: skip

    def work(mode: str, folder: Path, stop_after: int) -> None:
        with join_world(mode) as world:
            model, steps = fresh(), iter(range(1, 99))
            done = train_phase(
                model, config, phase, tokenizer, folder, seed=1, report=lambda row: None, window=1, world=world,
                draw=draw, stop=lambda: next(steps) == stop_after,
            )  # fmt: skip
            gathered = {name: whole(weight.detach()).clone() for name, weight in model.state_dict().items()}
            if done and world.is_first:
                gathered.pop("llm.lm_head.weight")
                save_file(gathered, str(folder / "weights.safetensors"))

    def begin(name: str, mode: str = "alone", size: int = 1, stop_after: int = 0) -> list[float]:
        folder = tmp_path / name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pids = []
        for rank in range(size):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pids.append(os.fork())
            if pids[-1] == 0:
                code = 1
                try:
                    torch.set_num_threads(1)
                    words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
                    os.environ.update({key: str(value) for key, value in words.items()}, MASTER_ADDR="127.0.0.1")
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        work(mode, folder, stop_after)
                    code = 0
                except BaseException:
                    traceback.print_exc(file=sys.__stderr__)
                finally:
                    os._exit(code)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * size
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [row["loss"] for row in rows]

    return begin


def distance(tmp_path: Path, one: str, other: str) -> float:
    first, second = (load_file(str(tmp_path / name / "weights.safetensors")) for name in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_processes_learn_what_one_learns_and_go_on_for_each_other(start, tmp_path):
    alone = start("alone")
    assert len(alone) == STEPS
    assert start("ddp", "ddp", 2) == pytest.approx(alone, abs=2e-4)
    assert start("handed over", "fsdp", 2, stop_after=1) == pytest.approx(alone[:1], abs=2e-4)
    assert [path.name for path in (tmp_path / "handed over" / "state").iterdir()] == ["step-00000001"]
    assert start("handed over") == pytest.approx(alone, abs=2e-4)
    assert distance(tmp_path, "alone", "ddp") < 2e-4
    assert distance(tmp_path, "alone", "handed over") < 2e-4


@pytest.mark.parametrize("phase", [3], indirect=True)
def test_streams_that_go_alone_end_where_those_of_one_process_end(start, tmp_path):
    alone = start("alone")
    assert len(alone) == STEPS
    assert start("ddp", "ddp", 2) == pytest.approx(alone, abs=2e-4)
    assert start("handed over", "ddp", 2, stop_after=1) == pytest.approx(alone[:1], abs=2e-4)
    assert start("handed over") == pytest.approx(alone, abs=2e-4)
    assert distance(tmp_path, "alone", "ddp") < 2e-4
    assert distance(tmp_path, "alone", "handed over") < 2e-4


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_shares_take_over_from_one_process_and_from_shares(start, tmp_path):
    alone = start("alone")
    assert start("taken over", stop_after=2) == pytest.approx(alone[:2], abs=2e-4)
    assert start("taken over", "fsdp", 2) == pytest.approx(alone, abs=2e-4)
    assert start("shares", "fsdp", 2, stop_after=2) == pytest.approx(alone[:2], abs=2e-4)
    assert start("shares", "fsdp", 2) == pytest.approx(alone, abs=2e-4)
    assert distance(tmp_path, "alone", "taken over") < 2e-4
    assert distance(tmp_path, "alone", "shares") < 2e-4


def test_streams_are_shared_out_evenly(phase):
    worlds = [World(mode="ddp", rank=rank, size=2) for rank in range(2)]
    assert [list(world.streams(replace(phase, streams=4))) for world in worlds] == [[0, 2], [1, 3]]
    with pytest.raises(SettingError) as error:
        worlds[0].streams(replace(phase, streams=3))
    assert str(error.value) == (
        "phase sft: 3 streams cannot be shared by 2 processes; give a multiple: --set streams=2"
    )  # fmt: skip


def test_shares_of_weights_cannot_go_alone(phase):
    with pytest.raises(SettingError) as error:
        World(mode="fsdp", size=2).streams(replace(phase, local_steps=2))
    assert str(error.value) == (
        "phase sft: with local_steps every process needs all weights, and fsdp gives it a share of them; "
        "use --parallel ddp"
    )


def test_one_process_adds_nothing():
    world = World()
    assert world.add(3) == 3.0
    assert world.agree(True, False) == (True, False)
    assert world.interleave([4, 5]) == [4, 5]


def test_flash_attention_is_refused_without_a_gpu(fresh, config, sft, tokenizer, tmp_path):
    with pytest.raises(TrainingError) as error:
        train_phase(
            fresh(), config, replace(sft, attention="flash"), tokenizer, tmp_path, seed=1, report=lambda row: None
        )
    assert str(error.value) == (
        "phase sft: attention 'flash' needs a GPU, this run is on the cpu; use --set sft.attention=segments"
    )


def test_torchrun_starts_two_processes_that_lose_what_one_loses(tmp_path):
    """The command of the documentation, one phase of it."""
    words = ["-m", "handlens.cli.main", "train", "nano:smoke:warmup", "--set", "streams=2", "--set", "steps=2"]
    words += ["--set", "vocabulary_records=60", "--set", "report_steps=1"]
    pair = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *words]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    rows = {}
    for folder, start in (("one", words), ("two", pair)):
        done = subprocess.run(
            [sys.executable, *start, "--out", str(tmp_path / folder)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        log = (tmp_path / folder / "warmup" / "log.jsonl").read_text()
        rows[folder] = [json.loads(line) for line in log.splitlines()]
    losses = {folder: [row["loss"] for row in some] for folder, some in rows.items()}
    assert len(losses["one"]) == 2
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-3)
    assert rows["one"][-1]["pictures"] == rows["two"][-1]["pictures"]
    assert (tmp_path / "two" / "warmup" / "model.safetensors").is_file()
