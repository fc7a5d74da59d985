"""``handlens ask`` and ``handlens export`` on a small model with random weights: the whole way, offline."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import handlens
from handlens.cli.main import run
from handlens.config import HandlensConfig, LanguageConfig, VisionConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import ModelError
from handlens.model.checkpoint import save_model
from handlens.model.vlm import build_model
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

TEXTS = ["The total is 23.50 and the tax is 1.90", "a red square is left of the blue circle"] * 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch model folder."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = folder / "vocabulary.json"
    save_vocabulary(train_vocabulary(TEXTS, 400), vocabulary)
    torch.manual_seed(0)
    language = LanguageConfig(vocab_size=Tokenizer.from_file(vocabulary).vocab_size, num_layers=2)
    save_model(
        build_model(HandlensConfig(language=language, vision=VisionConfig(num_layers=2))), folder / "toy", vocabulary
    )
    return folder / "toy"


@pytest.fixture(scope="module")
def bundle(model: Path) -> Path:
    """The same model as a bundle, made by the command."""
    folder = model.parent / "toy.bundle"
    assert run(["export", str(model), "--to", str(folder), "--quant", "F32"]) == 0
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    Image.radial_gradient("L").resize((500, 300)).convert("RGB").save(file)
    return file


def answered(capsys: pytest.CaptureFixture, *args: str) -> str:
    capsys.readouterr()
    assert run(["ask", *args]) == 0
    return capsys.readouterr().out


def test_export_says_what_it_wrote(model, tmp_path, capsys):
    target = tmp_path / "again.bundle"
    assert run(["export", str(model), "--to", str(target), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["folder"] == str(target)
    assert {"manifest.json", "vision.onnx", "language-Q8_0.gguf", "tokenizer.json"} <= set(report["files"])


def test_bundle_and_torch_model_give_the_same_answer(bundle, model, photo, capsys):
    common = [str(photo), "What is the total?", "--max-tokens", "8", "--json"]
    reports = [json.loads(answered(capsys, *common, "--model", str(folder))) for folder in (bundle, model)]
    ids = [[token["id"] for token in report["tokens"]] for report in reports]
    assert ids[0] == ids[1]
    assert len(ids[0]) >= 1
    # 500x300 px in slices of 224: ceil(2.99) = 3 wanted, 2x1 is nearest to 5:3 among 2, 3 and 4 cells.
    assert reports[0]["images"][0]["grid"] == [2, 1]
    assert reports[0]["images"][0]["visual_tokens"] == 3 * 64


def test_streamed_text_is_the_answer(bundle, photo, capsys):
    common = [str(photo), "What is it?", "--model", str(bundle), "--max-tokens", "6"]
    report = json.loads(answered(capsys, *common, "--json"))
    assert answered(capsys, *common) == report["answer"] + "\n"


def test_sampling_options_reach_the_model(bundle, photo, capsys):
    common = [str(photo), "Why?", "--model", str(bundle), "--max-tokens", "12", "--temperature", "3"]
    first, again, other = (answered(capsys, *common, "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again
    assert first != other


def test_max_slices_and_show_and_picture(bundle, photo, tmp_path, capsys):
    target = tmp_path / "seen.png"
    args = [str(photo), str(photo), "Why?", "--model", str(bundle), "--max-tokens", "1"]
    assert run(["ask", *args, "--max-slices", "1", "--show", "--picture", str(target)]) == 0
    err = capsys.readouterr().err
    assert err.count("photo.png: 500x300 px, no grid") == 2
    assert (tmp_path / "seen-1.png").is_file()
    assert (tmp_path / "seen-2.png").is_file()
    assert not target.exists()


def test_standard_input_and_a_page_of_a_pdf(bundle, photo, tmp_path):
    Image.open(photo).save(tmp_path / "doc.pdf", save_all=True, append_images=[Image.new("RGB", (90, 90))])
    command = [sys.executable, "-m", "handlens.cli.main", "ask", "-", f"{tmp_path}/doc.pdf#2", "Why?"]
    done = subprocess.run(
        [*command, "--model", str(bundle), "--max-tokens", "2", "--json"],
        input=photo.read_bytes(), capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(handlens.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [seen["name"] for seen in json.loads(done.stdout)["images"]] == ["standard input", "doc.pdf#2"]


def test_empty_standard_input(bundle, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(["ask", "-", "Why?", "--model", str(bundle)]) == 1
    assert "standard input is empty (0 bytes)" in capsys.readouterr().err


def test_a_changed_byte_is_found_and_named(bundle, photo, tmp_path, capsys):
    import shutil

    for ending in ("onnx", "gguf", "json"):
        copy = tmp_path / ending
        shutil.copytree(bundle, copy)
        file = next(file for file in copy.glob(f"*.{ending}") if file.name != "manifest.json")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        assert run(["ask", str(photo), "Why?", "--model", str(copy)]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"handlens ask: {file} is damaged: its sha256 begins ")
        assert err.count("\n") == 1


def test_load_opens_by_path(bundle, model):
    assert handlens.load(bundle).info.engine == "onnxruntime+llama.cpp"
    assert handlens.load(str(model)).info.engine == "torch"
    with pytest.raises(
        ModelError, match=r"unknown model 'no/such'; known: nano.*`handlens models pull no/such` fetches it"
    ):
        handlens.load("no/such")


def test_export_errors(model, tmp_path, capsys):
    assert run(["export", str(tmp_path), "--to", str(tmp_path / "b")]) == 1
    assert "give a folder with config.json and model.safetensors" in capsys.readouterr().err
    assert run(["export", str(model), "--to", str(tmp_path / "b"), "--quant", "Q9"]) == 1
    assert "Q9" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_notice_in_the_ledger_is_said_beside_the_answer(
    model: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    warned = tmp_path / "warned"
    warned.mkdir()
    for file in model.iterdir():
        (warned / file.name).write_bytes(file.read_bytes())
    (warned / "ledger.json").write_text('{"notice": "it guesses"}')
    assert run(["export", str(warned), "--to", str(tmp_path / "wary"), "--quant", "F32"]) == 0
    capsys.readouterr()
    assert run(["ask", str(photo), "What is it?", "--model", str(tmp_path / "wary"), "--max-tokens", "3"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "wary: it guesses"
    assert "it guesses" not in said.out
