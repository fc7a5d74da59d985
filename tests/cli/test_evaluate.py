"""``handlens eval`` on a small model with random weights, as a bundle and in torch."""

import json
from pathlib import Path

import pytest
import torch

from handlens.cli.main import run
from handlens.config import HandlensConfig, LanguageConfig, VisionConfig
from handlens.data.generate import generate
from handlens.model.checkpoint import save_model
from handlens.model.vlm import build_model
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

FEW = ("--kinds", "labels", "--count", "2", "--max-tokens", "3", "--level", "0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    fast = train_vocabulary(["The total is 23.50"] * 3, 300)
    save_vocabulary(fast, folder / "vocabulary.json")
    torch.manual_seed(0)
    language = LanguageConfig(vocab_size=fast.get_vocab_size(), num_layers=1)
    vision = VisionConfig(num_layers=1)
    save_model(
        build_model(HandlensConfig(language=language, vision=vision)), folder / "toy", folder / "vocabulary.json"
    )
    return folder / "toy"


@pytest.fixture(scope="module")
def bundle(model: Path) -> Path:
    folder = model.parent / "toy.bundle"
    assert run(["export", str(model), "--to", str(folder), "--quant", "F32"]) == 0
    return folder


def test_a_bundle_is_scored_and_its_answers_are_kept(bundle, tmp_path, capsys):
    capsys.readouterr()
    file = tmp_path / "answers.json"
    assert run(["eval", str(bundle), *FEW, "--json", "--report", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["kinds"] == ["labels"]
    assert shown["settings"]["model"]["engine"].startswith("onnxruntime")
    turns = [turn for index in range(2) for turn in generate("labels", 1, index, split="heldout", level=0.0).turns]
    (whole,) = [score for score in shown["scores"] if score["task"] == "labels (all)"]
    assert whole["count"] == len(turns)
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert [answer["truth"] for answer in stored["answers"]] == [turn.answer for turn in turns]
    assert stored["scores"] == shown["scores"]


def test_a_table_for_people(model, capsys):
    assert run(["eval", str(model), *FEW, "--seed", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["task", "n", "exact", "95", "%", "interval", "CER", "measured", "by"] for line in lines)
    (whole,) = [line.split() for line in lines if "labels (all)" in line]
    # labels (all) | n | exact | low to high | CER
    assert len(whole) == 8
    assert whole[3].endswith("%")
    assert float(whole[-1]) >= 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--kinds", "label"], "handlens eval: unknown kind 'label'; did you mean 'labels'?"),
        (["--split", "hold"], "handlens eval: unknown split 'hold'"),
        (["--report", "no/where.json"], "handlens eval: cannot write the report no/where.json: there is no folder no"),
    ],
)
def test_errors(model, capsys, args, message):
    assert run(["eval", str(model), *args]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
