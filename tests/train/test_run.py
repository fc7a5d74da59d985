"""Runs: names, settings, folders, signals, and kills."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace

import pytest
import torch

from handlens.core.tokenizer import Tokenizer
from handlens.errors import SettingError, TrainingError
from handlens.model.checkpoint import load_model
from handlens.train import run as runs
from handlens.train.feed import batches
from handlens.train.phases import Recipe
from handlens.train.run import apply_settings, pause_on_signals, resolve, train, vocabulary_texts
from handlens.train.vocabulary import train_vocabulary
from handlens.train.warmstart import patch_shapes

SOURCE = Path(runs.__file__).parents[2]


@pytest.fixture
def tiny(monkeypatch, config, vision, sft) -> Recipe:
    """A recipe of three short phases, known by the name ``tiny``."""
    warmup = replace(sft, name="warmup", trains=("resampler",), slicing=False, steps=2)
    recipe = Recipe(name="tiny", phases=(vision, warmup, replace(sft, steps=2)))
    module = SimpleNamespace(recipe=lambda: recipe, model=lambda vocab_size: config)
    monkeypatch.setitem(runs.RECIPES, "tiny", module)
    monkeypatch.setattr(runs, "WARM_START_BATCHES", 3)
    return recipe


@pytest.fixture
def out(tmp_path, vocabulary) -> Path:
    """A run folder whose vocabulary is there already."""
    folder = tmp_path / "run"
    folder.mkdir()
    copyfile(vocabulary, folder / "tokenizer.json")
    return folder


# ---- names and settings ----------------------------------------------------------------------------------------------


def test_names_of_recipes_and_phases():
    whole, _ = resolve("nano")
    assert resolve("nano:all")[0] == whole
    assert [phase.name for phase in resolve("nano:vision")[0].phases] == ["vision"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nanno", "unknown recipe 'nanno'; did you mean 'nano'?"),
        ("huge", "unknown recipe 'huge'; known: nano"),
        ("nano:visoin", "recipe nano has no phase 'visoin'; did you mean 'vision'?"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(SettingError) as error:
        resolve(name)
    assert str(error.value) == message


def test_settings_reach_one_phase_or_all(tiny):
    changed = apply_settings(tiny, {"steps": "7", "sft.rate": "1e-5", "sft.slicing": "False", "seed": "9"})
    assert [phase.steps for phase in changed.phases] == [7, 7, 7]
    assert [phase.rate for phase in changed.phases] == [2e-3, 2e-3, 1e-5]
    assert [phase.slicing for phase in changed.phases] == [True, False, False]
    assert changed.seed == 9
    assert apply_settings(tiny, {}) == tiny


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sft.stepz", "3", "unknown setting 'stepz' in Phase; did you mean 'steps'?"),
        ("sftt.steps", "3", "recipe tiny has no phase 'sftt'; did you mean 'sft'?"),
        ("steps", "many", "setting steps is 'many'; a int is needed"),
        ("sft.rate", "fast", "setting sft.rate is 'fast'; a float is needed"),
        ("sft.slicing", "perhaps", "setting sft.slicing is 'perhaps'; a bool is needed"),
        ("sft.steps", "0", "phase sft: steps is 0; at least 1 is needed"),
        ("sft.mixture", "lines", "unknown setting 'mixture' in Phase; "),
    ],
)
def test_settings_that_cannot_be(tiny, key, value, message):
    with pytest.raises(SettingError) as error:
        apply_settings(tiny, {key: value})
    assert str(error.value).startswith(message)


def test_texts_for_the_vocabulary_repeat_and_train_one(tiny):
    texts = list(vocabulary_texts(tiny, count=12))
    assert texts == list(vocabulary_texts(tiny, count=12))
    assert texts != list(vocabulary_texts(replace(tiny, seed=2), count=12))
    assert Tokenizer(train_vocabulary(texts, 300)).vocab_size <= 300


def test_shapes_are_read_from_positions(config, vision):
    batch = next(batches(replace(vision, pictures_per_step=3), config, None, seed=2))
    for (rows, columns), keys in zip(patch_shapes(batch.slices, 70), batch.slices.key_positions, strict=True):
        # The second half of a key is the code of its row, the first that of its column.
        real = keys[: rows * columns].reshape(rows, columns, -1)
        assert torch.equal(real[:, :1, 64:].expand_as(real[..., 64:]), real[..., 64:])
        assert torch.equal(real[:1, :, :64].expand_as(real[..., :64]), real[..., :64])


# ---- whole runs ------------------------------------------------------------------------------------------------------


def same(one: Path, other: Path) -> bool:
    weights = load_model(other).state_dict()
    return all(torch.equal(weight, weights[name]) for name, weight in load_model(one).state_dict().items())


def test_a_run_leaves_a_model_per_phase_and_goes_on_after_a_signal(tiny, out, tmp_path, vocabulary):
    told = []
    last = train("tiny", out, {}, told.append)
    assert last == out / "sft"
    assert [row["phase"] for row in told] == ["vision", "warmup", "warmup", "sft"]
    assert told[1]["place_r2"] > 0.5
    for name in ("vision", "warmup", "sft"):
        assert (out / name / "tokenizer.json").read_bytes() == vocabulary.read_bytes()
    assert not same(out / "warmup", out / "sft")
    assert json.loads((out / "recipe.json").read_text())["phases"][2]["steps"] == 2

    # Called again it has nothing to do.
    stamps = {file: file.stat().st_mtime_ns for file in out.glob("*/model.safetensors")}
    assert train("tiny", out) == last
    assert stamps == {file: file.stat().st_mtime_ns for file in out.glob("*/model.safetensors")}

    # Another run is told to stop while it is in the second phase; the same call ends as the first run did.
    other = tmp_path / "other"
    other.mkdir()
    copyfile(vocabulary, other / "tokenizer.json")

    def interrupt(row: dict) -> None:
        if "place_r2" in row:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError) as error:
        train("tiny", other, {}, interrupt)
    assert str(error.value) == (
        f"stopped in phase warmup; its checkpoint is in {other}/warmup; the same command goes on"
    )
    assert (other / "warmup" / "state" / "step-00000001").is_dir()
    assert not (other / "warmup" / "model.safetensors").exists()
    train("tiny", other)
    assert same(last, other / "sft")


def test_one_phase_alone_begins_with_what_is_there(tiny, out):
    train("tiny:vision", out)
    assert [folder.name for folder in out.iterdir() if folder.is_dir()] == ["vision"]
    train("tiny:sft", out)
    assert {folder.name for folder in out.iterdir() if folder.is_dir()} == {"vision", "sft"}


def test_a_folder_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError) as error:
        train("tiny", tmp_path / "file" / "run")
    assert str(error.value) == (
        f"cannot write the run folder {tmp_path}/file/run: Not a directory; give --out a folder that can be written"
    )


def test_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pause_on_signals() as pause:
        assert not pause()
        os.kill(os.getpid(), signal.SIGINT)
        assert pause()
        # The second Ctrl-C does not wait.
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# ---- killed from outside ---------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.model.vlm import build_model
from handlens.train.loop import train_phase
from handlens.train.phases import Phase
from handlens.train.run import pause_on_signals

config = HandlensConfig(
    vision=VisionConfig(width=96, mlp_width=128, num_layers=1, num_heads=2),
    resampler=ResamplerConfig(num_queries=16, width=128, vision_width=96),
    language=LanguageConfig(vocab_size=60, width=128, mlp_width=64, num_layers=1, num_heads=2, num_kv_heads=1),
    slicing=SlicingConfig(side_px=112, max_slices=4),
)
phase = Phase(
    name="vision", trains=("vision",), objective="reading", sides_px=(112,), slicing=True, mixture={"labels": 1.0},
    steps=5, rate=2e-3, slices_per_step=4, pictures_per_step=2, warmup_steps=2,
)

def report(row):
    if row["step"] == 3 and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if row["step"] == 3 and how == "group":
        os.killpg(0, signal.SIGTERM)

for word in sys.argv[1:]:
    folder, how = word.split("=")
    torch.manual_seed(3)
    model = build_model(config)
    with pause_on_signals() as pause:
        done = train_phase(
            model, config, phase, None, Path(folder), seed=1, report=report, window=1, stop=pause,
            seconds_between_checkpoints=0.0,
        )
    print(folder, done, float(sum(weight.double().abs().sum() for weight in model.state_dict().values())))
"""


def test_killed_runs_end_as_if_they_had_not_been(tmp_path):
    """SIGKILL in the third step, then SIGTERM for the whole process group with the process that makes batches."""

    def process(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=False,
            start_new_session=True, timeout=250, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    assert process("hit=kill").returncode == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "hit" / "state").glob("step-*")) == [
        "step-00000001", "step-00000002",
    ]  # fmt: skip
    after = process("hit=group", "hit=not", "straight=not")
    assert after.returncode == 0, after.stderr
    (_, first, _), (_, second, resumed), (_, third, straight) = (line.split() for line in after.stdout.splitlines())
    assert (first, second, third) == ("False", "True", "True")
    assert resumed == straight
