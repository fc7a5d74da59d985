import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handlens.config import HandlensConfig, SlicingConfig
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.engine.answerer import open_bundle
from handlens.engine.bundle import Bundle, fingerprint
from handlens.errors import ModelError, NeedsExtra, SettingError
from handlens.export.bundle import export_bundle
from handlens.export.verify import compare
from handlens.model.checkpoint import load_config
from handlens.model.halves import open_torch

BundleOf = Callable[..., Path]


@pytest.fixture
def copy(bundle_of: BundleOf, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle_of("Q8_0"), tmp_path / "copy"))


# ---- the same answers ------------------------------------------------------------------------------------------------


def test_f32_bundle_says_what_torch_says(model_folder: Path, bundle_of: BundleOf, pictures: list[Picture]) -> None:
    agreement = compare(open_torch(model_folder), open_bundle(bundle_of("F32"), threads=1), pictures, max_tokens=32)
    assert agreement.num_equal == agreement.num_tokens >= 32
    assert agreement.visual_gap <= 1e-4


def test_beams_are_those_of_torch(model_folder: Path, bundle_of: BundleOf, pictures: list[Picture]) -> None:
    answers = []
    for lens in (open_torch(model_folder), open_bundle(bundle_of("F32"), threads=1)):
        seen = lens.see(pictures[:2])
        sampling = Sampling(max_tokens=20, num_beams=3, repetition_penalty=1.2)
        answers.append(list(lens.answer(ask("which?", 2), seen, sampling)))
    torch_says, bundle_says = ([token.id for token in answer] for answer in answers)
    assert bundle_says == torch_says and len(set(torch_says)) > 5
    for one, other in zip(*answers, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_scores_are_those_of_torch(model_folder: Path, bundle_of: BundleOf, pictures: list[Picture]) -> None:
    texts = ["yes", "no", "the total is 23.50", ""]
    lenses = (open_torch(model_folder), open_bundle(bundle_of("F32"), threads=1))
    scores = [lens.score(ask("is it?"), lens.see(pictures[1:2]), texts) for lens in lenses]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert scores[0][3] == 0.0 and max(scores[0][:3]) < 0


@pytest.mark.parametrize(("quant", "vision"), [("F16", "fp32"), ("BF16", "fp32"), ("Q8_0", "int8"), ("Q4_K_M", "fp32")])
def test_every_variant_answers(quant: str, vision: str, bundle_of: BundleOf, pictures: list[Picture]) -> None:
    lens = open_bundle(bundle_of(quant, vision), threads=1)
    assert lens.info.quantisation == quant
    assert len(list(lens.answer(ask("what?"), lens.see(pictures[:1]), Sampling(max_tokens=5)))) == 5


def test_a_bundle_answers_where_torch_cannot_be_imported(bundle_of: BundleOf) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'safetensors', 'onnx', 'pydantic'): sys.modules[name] = None\n"
        "from PIL import Image\n"
        "from handlens.core.chat import ask\n"
        "from handlens.core.images import Picture\n"
        "from handlens.core.sampling import Sampling\n"
        "from handlens.engine.answerer import open_bundle\n"
        f"lens = open_bundle({str(bundle_of('Q8_0'))!r}, threads=1)\n"
        "seen = lens.see([Picture(Image.new('RGB', (200, 300)), 'black')])\n"
        "print(len(list(lens.answer(ask('what?'), seen, Sampling(max_tokens=7)))))\n"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=source)
    assert (done.stdout, done.stderr) == ("7\n", "")


# ---- what a manifest promises ----------------------------------------------------------------------------------------


def test_manifest_describes_the_folder(bundle_of: BundleOf, model_folder: Path) -> None:
    folder = bundle_of("Q4_K_M")
    bundle = Bundle.open(folder)
    bundle.check()
    assert set(bundle.manifest["files"]) | {"manifest.json"} == {file.name for file in folder.iterdir()}
    assert bundle.config == load_config(model_folder)
    assert bundle.manifest["licence"] == "Apache-2.0" and bundle.manifest["ledger"] is None


def test_ledger_and_weights_travel_where_asked(model_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(model_folder, tmp_path / "source"))
    (source / "ledger.json").write_text('{"tokens": 12}', encoding="utf-8")
    out = export_bundle(source, tmp_path / "out", name="tiny", licence="MIT", weights=True)
    manifest = Bundle.open(out).manifest
    assert (manifest["name"], manifest["licence"], manifest["ledger"]) == ("tiny", "MIT", {"tokens": 12})
    assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert open_torch(out).info.engine == "torch"


@pytest.mark.parametrize("name", ["vision.onnx", "language-Q8_0.gguf", "tokenizer.json"])
def test_a_changed_byte_is_found_when_the_file_is_used(name: str, copy: Path, pictures: list[Picture]) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    message = (
        rf"{re.escape(name)} is damaged: its sha256 begins [0-9a-f]{{12}}, the manifest says [0-9a-f]{{12}}; copy "
    )
    with pytest.raises(ModelError, match=message) as caught:
        lens = open_bundle(copy, threads=1)
        next(lens.answer(ask("what?"), lens.see(pictures[:1]), Sampling()))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=message):
        Bundle.open(copy).check()


def test_a_cut_file_is_found_at_once(copy: Path) -> None:
    file = copy / "vision.onnx"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2])
    with pytest.raises(ModelError, match=rf"has {size // 2:,} bytes, the manifest says {size:,}; it is cut or changed"):
        open_bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "language-Q8_0.gguf").unlink()
    with pytest.raises(ModelError, match=r"lacks language-Q8_0.gguf, which its manifest names; copy the bundle again"):
        open_bundle(copy)


def test_what_is_no_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing is not a folder; a bundle is a folder with manifest.json"):
        open_bundle(tmp_path / "nothing")
    (copy / "manifest.json").unlink()
    with pytest.raises(ModelError, match=r"has no manifest.json, so it is no bundle; make one with `handlens export`"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: "{", "manifest.json is damaged"),
        (lambda manifest: [], "manifest.json is damaged"),
        (lambda manifest: manifest | {"format": 9}, "has format 9; this release reads 1"),
        (lambda manifest: {"format": 1}, "lacks name, config, fingerprint, files, .onnx, .gguf, tokenizer.json"),
        (lambda manifest: manifest | {"files": []}, "lacks .onnx, .gguf, tokenizer.json"),
        (lambda manifest: manifest | {"files": list(manifest["files"])}, "manifest.json is damaged"),
        (lambda manifest: manifest | {"files": {name: {} for name in manifest["files"]}}, "manifest.json is damaged"),
        (lambda manifest: manifest | {"files": {**manifest["files"], "../x": {}}}, "names '../x'"),
        (lambda manifest: manifest | {"config": None}, "manifest.json is damaged"),
        (lambda manifest: manifest | {"fingerprint": "0" * 64}, "made for another preparation of pictures"),
        (lambda manifest: manifest | {"config": {"model_type": "bert"}}, "model_type 'bert'"),
        (lambda manifest: manifest | {"config": {"model_type": "minicpmv"}}, "lacks the field 'vision_config'"),
    ],
)
def test_a_damaged_manifest_is_one_line(change: Callable[[dict], object], message: str, copy: Path) -> None:
    file = copy / "manifest.json"
    changed = change(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed), encoding="utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        open_bundle(copy)
    assert "\n" not in str(caught.value)


def test_fingerprint_changes_with_preparation_only() -> None:
    one = HandlensConfig()
    assert fingerprint(one) == fingerprint(HandlensConfig())
    assert fingerprint(one) != fingerprint(HandlensConfig(slicing=SlicingConfig(side_px=448)))
    assert fingerprint(one) != fingerprint(HandlensConfig(family="2.5"))


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_a_failed_export_leaves_the_old_bundle(copy: Path, model_folder: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    broken = Path(shutil.copytree(model_folder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"model.safetensors \(4 bytes\) is no whole safetensors file"):
        export_bundle(broken, copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "copy"], "nothing unfinished stays"


def test_an_export_replaces_an_older_bundle(copy: Path, model_folder: Path, tmp_path: Path) -> None:
    export_bundle(model_folder, copy, quant="F16")
    assert not (copy / "language-Q8_0.gguf").exists()
    assert Bundle.open(copy).language == "language-F16.gguf"
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_other_folders_and_wrong_names_are_refused(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.txt").touch()
    with pytest.raises(ModelError, match="mine exists and is no bundle; give a new folder name"):
        export_bundle(model_folder, tmp_path / "mine")
    with pytest.raises(SettingError, match="unknown quantisation 'q8'"):
        export_bundle(model_folder, tmp_path / "out", quant="q8")
    with pytest.raises(SettingError, match="unknown vision variant 'int4'; did you mean 'int8'"):
        export_bundle(model_folder, tmp_path / "out", vision="int4")
    with pytest.raises(ModelError, match=r"no config.json in .*; give a folder with config.json and model.safetensors"):
        export_bundle(tmp_path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_torch_export_names_the_extra(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "handlens.export.halves", None)
    with pytest.raises(NeedsExtra, match=r"pip install 'handlens\[train\]'"):
        export_bundle(model_folder, tmp_path / "out")


def test_nothing_is_held_between_two_questions(bundle_of: BundleOf, pictures: list[Picture]) -> None:
    lens = open_bundle(bundle_of("Q8_0"), threads=1)
    seen = lens.see(pictures[:1])
    assert lens._vision is None and lens._language is None
    tokens = seen.pictures[0].visual_tokens
    assert tokens is not None and tokens.dtype == np.float32 and tokens.shape == (1, 16, 256)
