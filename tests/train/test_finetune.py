"""Fine-tuning: data in both dialects, adapters merged exactly, the best weights kept."""

import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from handlens.cli.main import run
from handlens.core.tokenizer import Tokenizer
from handlens.errors import DataError, ModelError, NeedsExtra, SettingError, TrainingError
from handlens.model.checkpoint import load_model, save_model
from handlens.model.vlm import build_model
from handlens.train.distributed import World
from handlens.train.feed import IGNORED, batches
from handlens.train.finetune import Batches, FineTune, Tuning
from handlens.train.learner import PARTS, Learner, freeze, token_loss
from handlens.train.lora import GROUP, Lora, add_lora, merge, round_while_training, stop_rounding
from handlens.train.pause import Pause
from handlens.train.plan import MACHINES
from handlens.train.run import Paused
from handlens.train.talks import Talks, read_talks, set_apart


@pytest.fixture
def base(fresh, vocabulary, tmp_path) -> Path:
    save_model(fresh(), tmp_path / "base", vocabulary)
    return tmp_path / "base"


def write_data(folder: Path, dialect: str = "minicpm-v", count: int = 8) -> Path:
    """Pictures of one colour; the answer is its name."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        colour = ("red", "blue")[number % 2]
        Image.new("RGB", (112, 112), colour).save(folder / f"{number}.png")
        says = [("user", "<image>\nWhich color?"), ("assistant", colour)]
        if dialect == "llava":
            turns = [{"from": {"user": "human", "assistant": "gpt"}[who], "value": text} for who, text in says]
        else:
            turns = [{"role": who, "content": text} for who, text in says]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


@pytest.mark.parametrize("dialect", ["minicpm-v", "llava"])
def test_both_dialects_give_the_same_samples(config, tokenizer, tmp_path, dialect):
    talks = Talks(read_talks(write_data(tmp_path / "data", dialect)), config, tokenizer, seed=1)
    sample = talks.build(talks.talks[1])
    answered = sample.ids[sample.targets != IGNORED]
    assert tokenizer.fast.decode(answered.tolist(), skip_special_tokens=False) == "blue<|im_end|>"
    assert sample.is_visual.sum() == 16
    assert np.array_equal(np.unique(sample.tasks), [-1, 0])


def test_two_answers_are_two_tasks_and_no_picture_is_no_slice(config, tokenizer, tmp_path):
    turns = [("user", "One?"), ("assistant", "two"), ("user", "Three?"), ("assistant", "four")]
    row = {"id": "0", "conversations": [{"role": who, "content": text} for who, text in turns]}
    (tmp_path / "data.json").write_text(json.dumps([row]))
    talks = Talks(read_talks(tmp_path / "data.json"), config, tokenizer, seed=1)
    sample = talks.build(talks.talks[0])
    assert sample.patches == [] and sample.num_slices == 0
    assert [
        tokenizer.fast.decode(sample.ids[sample.tasks == number].tolist(), skip_special_tokens=True)
        for number in (0, 1)
    ] == ["two", "four"]


def test_faults_are_told_before_anything_is_trained(base, tmp_path):
    data = write_data(tmp_path / "data")
    rows = json.loads(data.read_text())
    rows[3]["conversations"][0]["content"] = "<image><image> Which color?"
    data.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"sample 3: .*; see all with: handlens data check"):
        Tuning(FineTune(model=base, data=data, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_held_out_samples_are_never_learned_from(tmp_path):
    talks = read_talks(write_data(tmp_path / "data", count=20))
    learned, kept = set_apart(talks, 0.25, seed=3)
    assert len(kept) == 5
    assert {talk.key for talk in learned} | {talk.key for talk in kept} == {talk.key for talk in talks}
    assert not {talk.key for talk in learned} & {talk.key for talk in kept}
    assert set_apart(talks, 0.0, seed=3)[1] == []
    with pytest.raises(DataError, match=r"^1 samples are too few to hold out 10%"):
        set_apart(talks[:1], 0.1, seed=3)


def test_merged_adapters_compute_what_adapters_computed(fresh, config, sft, tokenizer):
    model = fresh()
    wrapped = add_lora(model, Lora(rank=4, targets=r"llm\.model\.layers\.1\.self_attn\.[qv]_proj"))
    model.llm.set_attn_implementation("segments")
    phase = replace(sft, adapter=True, optimiser="adamw", rate=1e-2, warmup_steps=0, pictures_per_step=1)
    learner = Learner(model, config, phase, tokenizer)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    assert sum("lora_" in name for name in names) == 4
    batch = next(batches(phase, config, tokenizer, seed=2))
    before = token_loss(model, batch)[0].detach()
    learner.learn(batch, 0)
    learner.learn(batch, 1)
    after = token_loss(model, batch)[0].detach()
    merged = merge(wrapped)
    assert set(merged.state_dict()) == set(fresh().state_dict())
    torch.testing.assert_close(token_loss(merged, batch)[0].detach(), after, rtol=1e-4, atol=1e-5)
    assert after < before


@torch.no_grad()
def weights_in_use(layer: torch.nn.Module) -> torch.Tensor:
    """What a layer multiplies with, read from what it makes of the unit vectors."""
    return layer(torch.eye(layer.in_features)).T


def test_a_model_that_learns_to_be_rounded(fresh, config, sft, tokenizer):
    pytest.importorskip("torchao", reason="rounding while learning: pip install 'handlens[qat]'")
    plain, model = fresh(), fresh()
    assert round_while_training(model) == 7 * config.language.num_layers
    layer, same = (one.llm.model.layers[0].mlp.down_proj for one in (model, plain))
    assert torch.equal(layer.weight, same.weight)  # what learns is not rounded
    groups = weights_in_use(layer).unflatten(1, (-1, GROUP))
    steps = groups.diff(dim=-1).abs()
    assert max(len(group.unique()) for group in groups.flatten(0, 1)) <= 16
    # Symmetric: the largest of a group is 7.5 steps away from nothing, or rounded to one of its neighbours.
    scale = same.weight.unflatten(1, (-1, GROUP)).abs().amax(-1, keepdim=True) / 7.5
    assert torch.allclose(steps / scale, (steps / scale).round(), atol=1e-3)
    assert ((groups - same.weight.unflatten(1, (-1, GROUP))).abs() <= 1.01 * scale).all()

    model.llm.set_attn_implementation("segments")
    phase = replace(sft, optimiser="adamw", rate=3e-3, warmup_steps=0, pictures_per_step=1, steps=30)
    learner = Learner(model, config, phase, tokenizer)
    batch = next(batches(phase, config, tokenizer, seed=2))
    losses = [learner.learn(batch, step)["loss"] for step in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    learned = layer.weight.clone()
    stop_rounding(model)
    after = model.llm.model.layers[0].mlp.down_proj
    assert type(after) is torch.nn.Linear and torch.equal(after.weight, learned)
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (Lora(targets="[a"), r"^--targets '\[a' is no regular expression"),
        (Lora(targets="llm.nothing"), r"^--targets 'llm.nothing' fits none of \d+ linear layers; names look like "),
        (Lora(saved=("resampla",)), r"^--save-module 'resampla' is no module"),
        (Lora(targets=".*"), r"^'llm.lm_head' holds the words that this model both reads and says"),
        (Lora(saved=("llm.model.embed_tokens",)), r"^'llm.model.embed_tokens' holds the words"),
        (Lora(saved=("llm",)), r"^'llm' holds the words"),
        (Lora(saved=("llm.model.layers",)), r"^--targets '.*' names nothing outside of the modules that learn whole"),
        (Lora(targets=r"resampler\.attn\.out_proj", saved=()), r"fits none of \d+ linear layers"),
        (Lora(rank=0), r"^--rank is 0 and --dropout 0; a rank of 1 or more"),
        (Lora(dropout=1.0), r"^--rank is 16 and --dropout 1; a rank"),
    ],
)
def test_adapters_that_fit_nothing(fresh, lora, message):
    with pytest.raises(SettingError, match=message):
        add_lora(fresh(), lora)


def test_rounding_and_adapters_do_not_go_together(base, tmp_path):
    with pytest.raises(SettingError, match=r"^--int4 rounds weights that learn, and those below --lora do not"):
        Tuning(FineTune(model=base, data=tmp_path, out=tmp_path / "out", lora=Lora(), int4=True))


def test_what_gets_worse_ends_and_the_best_is_kept(base, tmp_path):
    """A rate that ruins the model: the first look is the best one, and it is what is written."""
    data = write_data(tmp_path / "data", count=10)
    ask = FineTune(
        model=base, data=data, out=tmp_path / "out", held_out=0.2, pictures_per_step=2, steps=20, looks=20, patience=3,
        rate=0.5,
    )  # fmt: skip
    told = Tuning(ask).run()
    assert told["stopped_early"] and told["steps"] < 20
    assert told["steps"] == told["best_step"] + 3
    looks = [row["held_out"] for row in told["rows"] if "held_out" in row]
    assert looks[told["best_step"] - 1] == min(looks) < looks[-1]
    tuning = Tuning(ask)
    model = load_model(tmp_path / "out" / "finetune")
    model.llm.set_attn_implementation("segments")
    learner = Learner(model, tuning.config, tuning.phase, Tokenizer.from_file(base / "tokenizer.json"))
    assert learner.measure(Batches(tuning, tuning.kept)) == pytest.approx(told["held_out_loss"], abs=1e-6)


def test_the_command_teaches_and_is_done_once(base, tmp_path, capsys):
    data = write_data(tmp_path / "data", count=10)
    words = [
        "train", "finetune", "--model", str(base), "--data", str(data), "--out", str(tmp_path / "out"), "--lora",
        "--rank", "4", "--steps", "12", "--pictures-per-step", "2", "--rate", "0.005", "--held-out", "0.2",
    ]  # fmt: skip
    assert run([*words, "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert (cost["learned"], cost["held_out"], cost["steps"]) == (8, 2, 12)
    assert cost["memory_bytes"] > 0 and cost["hours"] > 0
    assert not (tmp_path / "out").exists()

    assert run([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    folder = tmp_path / "out" / "finetune"
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    looks = [row["held_out"] for row in rows if "held_out" in row]
    assert result["held_out_loss"] == pytest.approx(min(looks), abs=1e-4)
    assert [row["loss"] for row in rows if "loss" in row][-1] < 0.8 * rows[0]["loss"]
    for name in ("model.safetensors", "loss.png", "ledger.json", "README.md", "adapter/adapter_model.safetensors"):
        assert (folder / name).is_file()
    # What was kept is the best look, merged.
    tuning = Tuning(FineTune(model=base, data=data, out=tmp_path / "out", held_out=0.2, pictures_per_step=2))
    model = load_model(folder)
    model.llm.set_attn_implementation("segments")
    learner = Learner(model, tuning.config, tuning.phase, Tokenizer.from_file(folder / "tokenizer.json"))
    # Beside the weights or added to them, an adapter is rounded differently where products are in bfloat16.
    assert learner.measure(Batches(tuning, tuning.kept)) == pytest.approx(min(looks), abs=1e-2)

    assert run(words) == 0
    said = capsys.readouterr()
    assert said.out == f"{folder}\n"
    assert "held out" in said.err and "step 1 to" in said.err


@pytest.mark.parametrize("targets", [r"vpm.*(fc1|q_proj)", r".*q_proj", r"llm\..*_proj"])
def test_what_learns_is_what_was_counted(base, fresh, tmp_path, targets):
    ask = FineTune(model=base, data=write_data(tmp_path / "data"), out=tmp_path / "out", lora=Lora(targets=targets))
    tuning, model = Tuning(ask), fresh()
    add_lora(model, ask.lora)
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert tuning.learning == sum(weight.numel() for weight in learned.values())
    assert {PARTS[part] for part in tuning.trains()} == {name.partition(".")[0] for name in learned}


def test_places_that_are_computed_do_not_learn_beside_adapters(config, vocabulary, tmp_path):
    language = replace(config.language, kind="minicpm", scale_emb=12.0, scale_depth=1.4, dim_model_base=64)
    model = build_model(replace(config, family="2.0", language=language))
    save_model(model, tmp_path / "old", vocabulary)
    ask = FineTune(model=tmp_path / "old", data=write_data(tmp_path / "data"), out=tmp_path / "out", lora=Lora())
    tuning = Tuning(ask)
    add_lora(model, ask.lora)
    learned = freeze(model, tuning.phase)
    assert learned and not [name for name, _ in learned if name.endswith("pos_embed")]
    assert tuning.learning == sum(weight.numel() for _, weight in learned)


WRONG = {
    "a picture that is cut": (lambda row, folder: (folder / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "5.png is"),
    "a picture that is gone": (lambda row, folder: (folder / "5.png").unlink(), "cannot read the picture"),
    "no answer": (lambda row, folder: row["conversations"][1].update(content=""), r"turn 1 \(assistant\) says nothing"),
    "a mark": (lambda row, folder: row["conversations"][1].update(content="red<|im_end|>"), "is a mark of the prompt"),
    "half a letter": (lambda row, folder: row["conversations"][1].update(content="a\ud83d b"), "lost in a conversion"),
    "a book": (lambda row, folder: row["conversations"][1].update(content="blue " * 5000), "tokens, 16 of them visual"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", WRONG)
@pytest.mark.parametrize("held_out", [0.1, 0.9])
def test_all_samples_are_looked_at_before_the_first_step(base, tmp_path, spoil, held_out):
    """Whichever side of the split the sample is on, in a dry run and in a run."""
    data = write_data(tmp_path / "data", count=10)
    rows = json.loads(data.read_text())
    change, words = WRONG[spoil]
    change(rows[5], tmp_path / "data")
    data.write_text(json.dumps(rows))
    tuning = Tuning(FineTune(model=base, data=data, out=tmp_path / "out", held_out=held_out, steps=2))
    for call in (tuning.run, lambda: tuning.cost(MACHINES["8xA100"])):
        with pytest.raises(
            DataError, match=rf"1 of 10 samples cannot be learned from: sample 5: .*{words}.*data check"
        ):
            call()
    assert not (tmp_path / "out" / "finetune").exists()


def test_another_fine_tuning_does_not_go_on_in_the_folder(base, tmp_path):
    data = write_data(tmp_path / "data", count=10)
    ask = FineTune(model=base, data=data, out=tmp_path / "out", steps=2, pictures_per_step=2)
    first = Tuning(ask).run()
    assert not first["was_done"]
    assert Tuning(replace(ask, patience=9)).run() == first | {"was_done": True}
    for name, value in {"steps": 3, "seed": 2, "held_out": 0.3, "lora": Lora()}.items():
        with pytest.raises(SettingError, match=rf"was begun with {name} .*, now it is .*; give another --out"):
            Tuning(replace(ask, **{name: value})).run()
    rows = json.loads(data.read_text())
    data.write_text(json.dumps(rows[1:]))
    with pytest.raises(SettingError, match="was begun with samples_sha256 "):
        Tuning(ask).run()
    data.write_text(json.dumps(rows))
    other = tmp_path / "other"
    copytree(base, other)
    assert Tuning(replace(ask, model=other)).run()["was_done"]  # the same weights elsewhere
    model = load_model(other)
    with torch.no_grad():
        model.resampler.query.add_(0.01)
    save_model(model, other, other / "tokenizer.json")
    with pytest.raises(SettingError, match="was begun with model_sha256 "):
        Tuning(replace(ask, model=other)).run()


def test_what_was_never_begun_may_be_asked_otherwise(base, tmp_path, monkeypatch):
    data = write_data(tmp_path / "data", count=10)
    ask = FineTune(model=base, data=data, out=tmp_path / "out", steps=2, pictures_per_step=2, lora=Lora())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(NeedsExtra, match="LoRA"):
        Tuning(ask).run()
    assert Tuning(replace(ask, lora=None)).run()["steps"] == 2
    file = tmp_path / "out" / "finetune.json"
    told = json.loads(file.read_text())
    del told["same"]["looks"]  # as an older version left it
    file.write_text(json.dumps(told))
    assert Tuning(replace(ask, lora=None)).run()["was_done"]
    file.write_text("{")
    with pytest.raises(TrainingError, match=r"finetune.json cannot be read; delete it"):
        Tuning(replace(ask, lora=None)).run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_samples_are_looked_at(base, tmp_path, number):
    tuning = Tuning(FineTune(model=base, data=write_data(tmp_path / "data"), out=tmp_path / "out", steps=2))
    seen = []

    def report(row) -> None:
        seen.append(row)
        if row == {"phase": "samples", "step": 3, "of": 8}:
            os.kill(os.getpid(), number)

    with pytest.raises(Paused, match=f"^stopped by {number.name} before the first step; nothing is lost$"):
        tuning.run(report)
    assert len(seen) == 3 and not (tmp_path / "out" / "finetune.json").exists()


def test_several_processes_cannot_share_one_stream(base, tmp_path):
    tuning = Tuning(FineTune(model=base, data=write_data(tmp_path / "data"), out=tmp_path / "out"))
    with pytest.raises(SettingError, match=r"^fine-tuning has 1 stream of batches and cannot be shared by 2 processes"):
        tuning.begin(World(mode="ddp", size=2), Pause(), lambda row: None)


def test_what_an_answer_may_hold_on_purpose(base, tmp_path):
    """Marks of places in a picture, and text that only looks as if it had been read with the wrong alphabet."""
    data = write_data(tmp_path / "data")
    rows = json.loads(data.read_text())
    rows[0]["conversations"][1]["content"] = "<ref>red</ref><box>1 2 3 4</box>"
    rows[1]["conversations"][1]["content"] = "LÃ—R$ 49,90"
    data.write_text(json.dumps(rows))
    tuning = Tuning(FineTune(model=base, data=data, out=tmp_path / "out"))
    assert tuning.check_samples()


def test_a_finished_run_needs_no_checkpoints(base, tmp_path):
    data = write_data(tmp_path / "data", count=10)
    ask = FineTune(model=base, data=data, out=tmp_path / "out", steps=2, pictures_per_step=2)
    first = Tuning(ask).run()
    rmtree(tmp_path / "out" / "finetune" / "state")
    assert Tuning(ask).run() == first | {"was_done": True}
    (tmp_path / "out" / "finetune" / "result.json").unlink()
    with pytest.raises(TrainingError, match=r"no result.json says how it went .*; export it with: handlens export"):
        Tuning(ask).run()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rate": -1.0}, "fine-tuning: rate is -1.0; at least 0.0 is needed"),
        ({"rate": math.nan}, "fine-tuning: rate is nan; a finite number is needed"),
        ({"epochs": math.inf}, "fine-tuning: epochs is inf; a finite number is needed"),
        ({"held_out": -0.5}, "fine-tuning: held_out is -0.5; at least 0.0 is needed"),
        ({"held_out": math.nan}, "fine-tuning: held_out is nan; a finite number is needed"),
        ({"seed": 10**22}, f"fine-tuning: seed is {10**22}; at most {2**63 - 1} is needed"),
        ({"pictures_per_step": 0}, "fine-tuning: pictures_per_step is 0; at least 1 is needed"),
        ({"epochs": 0.0}, "epochs and steps are 0; one of them must be above 0"),
        (
            {"int4": True, "trains": ("vision",)},
            "--int4 rounds the language model while it learns, and --trains leaves it out; add language",
        ),
    ],
)
def test_numbers_that_mean_nothing(base, tmp_path, changed, words):
    with pytest.raises(SettingError) as error:
        Tuning(FineTune(model=base, data=tmp_path, out=tmp_path / "out", **changed))
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--targets", "x"), "--targets changes nothing without --lora; add it, or leave it out"),
        (("--rank", "16"), "--rank changes nothing without --lora; add it, or leave it out"),
        (("--machine", "8xA100"), "--machine changes nothing without --dry-run; add it, or leave it out"),
        (("--quant", "Q4_0"), "--quant changes nothing without --to; add it, or leave it out"),
        (("--lora", "--trains", "vision"), "--trains names what learns without --lora; name layers with --targets"),
    ],
)
def test_options_that_would_change_nothing(capsys, words, told):
    assert run(["train", "finetune", "--model", "nano", "--data", "none.json", "--out", "none", *words]) == 2
    said = capsys.readouterr().err
    assert told in said and said.startswith("handlens train") and said.count("\n") == 1


def test_the_bundle_is_checked_before_anything_is_trained(base, tmp_path, capsys):
    data = write_data(tmp_path / "data")
    words = ["train", "finetune", "--model", str(base), "--data", str(data), "--out", str(tmp_path / "out")]
    assert run([*words, "--to", str(tmp_path / "new"), "--quant", "Q4_K_N"]) == 1
    assert "unknown quantisation 'Q4_K_N'" in capsys.readouterr().err
    assert run([*words, "--to", str(tmp_path / "data")]) == 1
    assert "data exists and is no bundle; give a new folder name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", " {} "])
def test_a_file_with_nothing_in_it(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(DataError, match=r"data.json is empty; a data set has one sample or more$"):
        read_talks(tmp_path / "data.json")


def test_a_model_without_weights_is_told(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    words = ["train", "finetune", "--model", str(tmp_path / "empty"), "--data", "x.json", "--out", str(tmp_path)]
    assert run(words) == 1
    assert capsys.readouterr().err == (
        f"handlens train: no model.safetensors in {tmp_path}/empty; "
        "fine-tuning needs config.json, model.safetensors and tokenizer.json\n"
    )


def test_the_folder_of_a_run_names_the_model_in_it(base, tmp_path):
    with pytest.raises(ModelError, match=rf"^no config.json in {tmp_path}; .*; did you mean {base}\?$"):
        load_model(tmp_path)
