"""Runs: names, settings, folders, signals, and kills."""

import json
import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from handlens.core.tokenizer import Tokenizer
from handlens.errors import ModelError, SettingError, TrainingError
from handlens.model.checkpoint import load_model, save_model
from handlens.train import choose
from handlens.train import run as runs
from handlens.train.cells import EYES
from handlens.train.choose import apply_settings, resolve
from handlens.train.distributed import World
from handlens.train.feed import batches
from handlens.train.loop import HEAD
from handlens.train.plan import plan_named
from handlens.train.run import given_of, refuse_changes, train, vocabulary_texts, write_asked
from handlens.train.vocabulary import train_vocabulary
from handlens.train.warmstart import patch_shapes

SOURCE = Path(runs.__file__).parents[2]


# ---- names and settings ----------------------------------------------------------------------------------------------


def test_names_of_recipes_and_phases():
    whole, _ = resolve("nano")
    assert resolve("nano:all")[0] == whole
    assert [phase.name for phase in resolve("nano:vision")[0].phases] == ["vision"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nanno", "unknown recipe 'nanno'; did you mean 'nano'?"),
        ("huge", "unknown recipe 'huge'; known: minicpm-v-1.0, minicpm-v-2.0, minicpm-v-llama3-2.5, nano, nano:smoke"),
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
        ("adapter", "true", "unknown setting 'adapter'; "),
        ("sft.samples", "5", "unknown setting 'samples' in Phase; "),
        ("seeds", "1", "unknown setting 'seeds'; did you mean 'seed'?"),
        ("report_step", "1", "unknown setting 'report_step'; did you mean 'report_steps'?"),
        ("sft.seed", "1", "setting sft.seed is for one phase; seed is for the whole recipe: leave 'sft.' out"),
        ("pictures_per_step", "0", "phase vision: pictures_per_step is 0; at least 1 is needed"),
        ("sft.rate", "nan", "phase sft: rate is nan; a finite number is needed"),
        ("seed", "9" * 26, f"recipe tiny: seed is {'9' * 26}; at most 9223372036854775807 is needed"),
    ],
)
def test_settings_that_cannot_be(tiny, key, value, message):
    with pytest.raises(SettingError) as error:
        apply_settings(tiny, {key: value})
    assert str(error.value).startswith(message)


def test_a_setting_of_a_phase_that_was_not_chosen_is_told(tiny):
    with pytest.raises(SettingError) as error:
        apply_settings(tiny.only("sft"), {"vision.steps": "20"})
    assert str(error.value) == (
        "phase 'vision' of recipe tiny was not chosen, only 'sft' was; leave its settings out, or train tiny:vision or "
        "tiny:all"
    )
    with pytest.raises(SettingError, match=r"^recipe tiny has no phase 'visoin'; did you mean 'vision'\?$"):
        apply_settings(tiny.only("sft"), {"visoin.steps": "20"})


@pytest.mark.parametrize("name", ["steps", "streams", "pictures_per_step", "slices_per_step", "local_steps"])
def test_a_published_number_of_records_goes_with_the_settings_it_came_from(name):
    recipe, _ = resolve("minicpm-v-2.0:adaptive")
    (phase,) = apply_settings(recipe, {name: "3"}).phases
    assert phase.samples == 0
    assert "samples" not in phase.substitutes and name not in phase.substitutes
    (kept,) = apply_settings(recipe, {"rate": "1e-3"}).phases
    assert kept.samples == recipe.phases[0].samples
    assert "samples" in kept.substitutes and "rate" not in kept.substitutes


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
        if row["phase"] == "warmup" and row["step"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError) as error:
        train("tiny", other, {}, interrupt)
    assert str(error.value) == (
        f"stopped by SIGTERM in phase warmup; its checkpoint is in {other}/warmup; the same command goes on"
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


def test_a_phase_goes_on_with_the_head_of_another(monkeypatch, tiny, out, config):
    named = replace(tiny.phases[1], name="named", objective="cells", steps=1)
    later = replace(named, name="later", head_of="named", rate=0.0)
    recipe = replace(tiny, phases=(named, later))
    module = SimpleNamespace(recipe=lambda: recipe, model=lambda vocab_size: config)
    monkeypatch.setitem(choose.RECIPES, "tiny", module)
    with pytest.raises(TrainingError) as error:
        train("tiny:later", out)
    assert str(error.value).startswith("phase later goes on with the head of phase named, and ")
    train("tiny", out)
    heads = [load_file(str(out / name / "state" / HEAD)) for name in ("named", "later")]
    assert heads[0].keys() == heads[1].keys() == {"out.weight", "out.bias"}
    assert all(torch.equal(weight, heads[1][name]) for name, weight in heads[0].items())


def test_told_cells_go_on_with_their_tables_and_join_takes_the_last(monkeypatch, tiny, out, config):
    told = replace(tiny.phases[0], name="told", trains=("language",), objective="layout", steps=1)
    again = replace(told, name="again", head_of="told", rate=0.0)
    last = replace(tiny.phases[1], name="join", trains=(), objective="cells", steps=1)
    recipe = replace(tiny, phases=(told, again, last))
    module = SimpleNamespace(recipe=lambda: recipe, model=lambda vocab_size: config)
    monkeypatch.setitem(choose.RECIPES, "tiny", module)
    with pytest.raises(TrainingError) as error:
        train("tiny:again", out)
    assert f"{out}/told/{EYES} is missing" in str(error.value)
    asked: list[Path | None] = []
    monkeypatch.setattr(runs, "prepare", lambda *given: asked.append(given[4]))
    train("tiny", out)
    assert asked == [None, out / "told" / EYES, out / "again" / EYES]
    tables = [load_file(str(out / name / EYES)) for name in ("told", "again")]
    assert all(torch.equal(weight, tables[1][name]) for name, weight in tables[0].items())


def test_what_a_later_phase_cannot_have_is_refused_before_the_first(monkeypatch, tiny, out):
    monkeypatch.setattr(runs, "join_world", lambda mode: nullcontext(World(mode="fsdp", size=2)))
    with pytest.raises(SettingError, match=r"^phase sft: with local_steps every process needs all weights"):
        train("tiny", out, {"streams": "2", "sft.local_steps": "4"})
    assert not (out / "recipe.json").exists()


def begun(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.json")}


def test_a_finished_phase_is_not_passed_off_as_another(tiny, out):
    train("tiny:vision", out, {"seed": "2"})
    asked = json.loads((out / "vision" / "phase.json").read_text())
    assert (asked["recipe"], asked["seed"], asked["steps"], asked["sides_px"]) == ("tiny", 2, 2, [112])
    assert not {"substitutes", "samples", "typical_px", "typical_tokens"} & asked.keys()
    files = begun(out)
    with pytest.raises(TrainingError) as error:
        train("tiny", out, {"seed": "2", "vision.steps": "4"})
    assert str(error.value) == (
        f"phase vision in {out} was begun with steps 2; now steps 4 is asked; give another --out or the same settings"
    )
    with pytest.raises(TrainingError, match=r"begun with seed 2; now seed 1 is asked"):
        train("tiny:vision", out)
    assert begun(out) == files
    train("tiny:warmup", out, {"seed": "2", "warmup.steps": "1"})


def test_another_recipe_is_named_first(monkeypatch, tiny, out):
    train("tiny:vision", out)
    other = replace(tiny, name="other", phases=(replace(tiny.phases[0], steps=3, mixture={"scenes": 1.0}, rate=1.0),))
    module = SimpleNamespace(recipe=lambda: other, model=choose.RECIPES["tiny"].model)
    monkeypatch.setitem(choose.RECIPES, "other", module)
    with pytest.raises(
        TrainingError, match=r"with recipe tiny, steps 2, rate 0.002; now recipe other, steps 3, rate 1"
    ):
        train("other", out)


def test_an_unfinished_phase_goes_on_with_new_settings_only_when_told(tiny, out):
    def interrupt(row: dict) -> None:
        if row["phase"] == "warmup" and row["step"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="stopped by SIGTERM"):
        train("tiny", out, {}, interrupt)
    files = begun(out)
    with pytest.raises(TrainingError) as error:
        train("tiny", out, {"warmup.steps": "3"})
    assert str(error.value) == (
        f"phase warmup in {out} was begun with steps 2; now steps 3 is asked; give another --out or the same settings; "
        f"to go on with the new ones delete {out}/warmup/phase.json"
    )
    assert begun(out) == files
    (out / "warmup" / "phase.json").unlink()
    train("tiny:warmup", out, {"warmup.steps": "3"})
    assert json.loads((out / "warmup" / "ledger.json").read_text())["steps"] == 3
    assert json.loads((out / "warmup" / "phase.json").read_text())["steps"] == 3


def test_a_phase_without_a_checkpoint_begins_anew_with_other_settings(tiny, out):
    with pytest.raises(TrainingError, match="attention 'flash' needs a GPU"):
        train("tiny:vision", out, {"attention": "flash"})
    assert (out / "vision" / "phase.json").exists()
    train("tiny:vision", out, {"attention": "segments"})


def test_a_file_of_settings_that_cannot_be_read_is_told(tiny, out):
    train("tiny:vision", out)
    file = out / "vision" / "phase.json"
    file.write_text("{")
    with pytest.raises(TrainingError) as error:
        train("tiny:vision", out)
    assert str(error.value) == f"{file} cannot be read; delete it to go on with the settings of this command"
    file.unlink()  # as a run of an older version left it
    train("tiny:vision", out, {"steps": "9"})


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_cut_weights_of_a_finished_phase_are_told(tiny, out, kept):
    train("tiny:vision", out)
    file = out / "vision" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(TrainingError) as error:
        train("tiny:vision", out)
    assert str(error.value) == f"{file} is damaged; delete it to train phase vision again"
    file.unlink()
    train("tiny:vision", out)
    load_model(out / "vision")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_to_begin_with_must_be_whole(tiny, tmp_path, missing):
    base = tmp_path / "base"
    base.mkdir()
    for name in {"config.json", "model.safetensors", "tokenizer.json"} - {missing}:
        (base / name).write_text("{}")
    with pytest.raises(ModelError) as error:
        train("tiny", tmp_path / "run", base=base)
    assert str(error.value) == (
        f"no {missing} in {base}; --from needs a model folder with config.json, model.safetensors and tokenizer.json"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError) as error:
        train("tiny", tmp_path / "file" / "run")
    assert str(error.value) == (
        f"cannot write the run folder {tmp_path}/file/run: Not a directory; give --out a folder that can be written"
    )


def test_other_shards_or_another_base_are_refused(monkeypatch, tiny, out, tmp_path):
    given = given_of(tiny, None, None)
    assert given["vocabulary_records"] == tiny.vocabulary_records and given["base_sha256"] is None
    for name, content in (("one", b"1"), ("two", b"22")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000000.tar").write_bytes(content)
        (tmp_path / name / "model.safetensors").write_bytes(content)
    told = [given_of(tiny, tmp_path / name, tmp_path / name) for name in ("one", "two")]
    assert {key for key in told[0] if told[0][key] != told[1][key]} == {"data_sha256", "base_sha256"}
    phase = tiny.phases[0]
    write_asked(told[0], phase, out)
    (out / phase.name / "model.safetensors").write_bytes(b"")
    refuse_changes(tiny, told[0], out)
    with pytest.raises(TrainingError, match=r"^phase vision in .* was begun with data_sha256 .*, base_sha256 "):
        refuse_changes(tiny, told[1], out)


@pytest.mark.parametrize("dry", [True, False])
def test_a_base_of_another_family_is_refused(dry, fresh, vocabulary, tmp_path):
    base = tmp_path / "base"
    save_model(fresh(), base, vocabulary)
    with pytest.raises(ModelError, match=r"is of family nano, and this recipe makes family 2.0; give --from one"):
        if dry:
            plan_named("minicpm-v-2.0:warmup", {}, "8xA100", base=base)
        else:
            train("minicpm-v-2.0:warmup", tmp_path / "out", data=tmp_path, base=base)
    assert not (tmp_path / "out").exists()
