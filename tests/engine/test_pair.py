"""Two GGUF files answer as the bundle they were exported with, with nothing beside them."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from PIL import Image

import handlens
from handlens import PACKAGED, asking
from handlens.cli.main import run
from handlens.core.images import Picture
from handlens.core.tokenizer import Tokenizer
from handlens.engine.bundle import Bundle
from handlens.engine.pair import open_pair, plan_of
from handlens.errors import ModelError, SettingError
from handlens.export.gguf_tokenizer import read_tokenizer
from handlens.export.llama_cpp import GgufFolder, export_gguf
from handlens.verify.case import drawn_picture

NANO = PACKAGED["nano"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_gguf(NANO, tmp_path_factory.mktemp("pair") / "nano-gguf", quant="F16")


@pytest.fixture(scope="module")
def bare(pair: Path) -> Path:
    """The two files alone, as they are found on the hub."""
    folder = pair.with_name("bare")
    folder.mkdir()
    for file in pair.glob("*.gguf"):
        shutil.copyfile(file, folder / file.name)
    return folder


def test_headers_say_what_the_configuration_says(pair: Path, bare: Path) -> None:
    found, told = GgufFolder.open(bare).config, GgufFolder.open(pair).config
    assert found == told == Bundle.open(NANO).config
    language = next(file for file in bare.glob("*.gguf") if "mmproj" not in file.name)
    assert GgufFolder.open(language) == GgufFolder.open(bare)


def test_the_vocabulary_of_the_file_is_the_tokenizer(bare: Path) -> None:
    ours, theirs = Tokenizer.from_file(NANO / "tokenizer.json"), read_tokenizer(GgufFolder.open(bare).language)
    for text in ("<image><unk></image>\nWhat is it?", "  Größe 12345 €5 <|im_end|>", "a\r\n\tb  c", "日本 🎈"):
        assert ours.encode(text).tolist() == theirs.encode(text).tolist()
        assert ours.decode(ours.encode(text).tolist()) == theirs.decode(theirs.encode(text).tolist())
    assert [ours.is_special(number) for number in range(ours.vocab_size)] == [
        theirs.is_special(number) for number in range(theirs.vocab_size)
    ]


def test_a_pair_sees_what_the_bundle_sees(bare: Path) -> None:
    # On these sizes llama.cpp cuts as the released code does.
    pictures = [drawn_picture(224, 224, "square"), drawn_picture(672, 672, "large")]
    ours, theirs = handlens.load(bare), handlens.load("nano")
    assert (ours.info.engine, ours.info.family) == ("llama.cpp", "nano")
    seen, expected = ours.see(pictures), theirs.see(pictures)
    assert seen.plans == expected.plans
    for mine, other in zip(seen.pictures, expected.pictures, strict=True):
        np.testing.assert_allclose(mine.visual_tokens, other.visual_tokens, atol=0.05)
    assert np.array_equal(
        ours.prompt(asking.ask_once("What?", 2), seen).ids,
        theirs.prompt(asking.ask_once("What?", 2), expected).ids,
    )


def test_ask_runs_a_pair(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    args = ["ask", str(tmp_path / "red.png"), "What colour is it?", "--model", str(bare), "--json", "--max-tokens", "3"]
    assert run(args) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens"] and told["images"][0]["visual_tokens"] % 64 == 0
    assert run([*args, "--max-slices", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["visual_tokens"] == 64
    assert run([*args, "--max-slices", "4"]) == 1
    assert "llama.cpp cuts into 1 or at most 9 slices" in capsys.readouterr().err


def test_plans_are_named_from_the_number_of_slices() -> None:
    assert plan_of(1920, 1080, 9, side_px=448).grid == plan_of(1920, 1080, 9, side_px=448).grid
    wide = plan_of(460, 300, 3, side_px=448)
    assert wide.num_slices == 3 and wide.grid is not None and (wide.grid.columns, wide.grid.rows) == (2, 1)
    assert plan_of(449, 449, 1, side_px=448).num_slices == 1


def test_files_of_two_models_are_refused(bare: Path, tmp_path: Path) -> None:
    wrong = shutil.copytree(bare, tmp_path / "wrong")
    reader = gguf.GGUFReader(wrong / "mmproj.gguf", "r+")
    reader.fields["clip.minicpmv_version"].parts[-1][0] = 3
    reader.data.flush()
    del reader
    with pytest.raises(ModelError, match=r"sees for 2\.6, whose language model is of kind qwen2; .* of kind llama"):
        open_pair(wrong)
    told = shutil.copytree(bare, tmp_path / "told")
    fields = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    (told / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 2}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json has num_hidden_layers 2, .*language-F16\.gguf has \d+"):
        open_pair(told)
    (told / "config.json").unlink()
    (told / "mmproj.gguf").unlink()
    with pytest.raises(ModelError, match=r"has 1 language and 0 mmproj GGUF files"):
        open_pair(told)


def test_slices_of_another_number_cannot_be_asked_for(bare: Path) -> None:
    picture = Picture(Image.new("RGB", (50, 50)), "small")
    with pytest.raises(SettingError, match="max_slices is 3"):
        open_pair(bare).see([picture], max_slices=3)
