import json
import shutil
from pathlib import Path

import pytest

from handlens.errors import ModelError, SettingError
from handlens.export import web
from handlens.export.bundle import export_bundle
from handlens.export.web import export_web, word_pattern


@pytest.fixture(scope="module")
def bundle(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(model_folder, tmp_path_factory.mktemp("web") / "small.bundle", weights=True)


def test_the_folder_lists_its_files_and_has_all_that_it_names(bundle: Path, tmp_path: Path) -> None:
    folder = export_web(bundle, tmp_path / "page")
    version, listed = (folder / "sw.js").read_text(encoding="utf-8").splitlines()[:2]
    files = json.loads(listed.removeprefix("const FILES = ").removesuffix(";"))
    assert {name: (folder / name).stat().st_size for name in files} == files
    assert set(files) | {"sw.js"} == {
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
    }
    assert {"vision.onnx", "language.onnx", "embeddings.bin", "runtime/ort-wasm-simd-threaded.wasm"} < set(files)
    assert (folder / "runtime" / "ort-wasm-simd-threaded.wasm").read_bytes()[:4] == b"\0asm"
    # The same model gives the same version, so a browser that has it fetches nothing; another one does not.
    again = export_web(bundle, folder)
    assert (again / "sw.js").read_text(encoding="utf-8").splitlines()[0] == version
    smaller = export_web(bundle, tmp_path / "smaller", vision="int8")
    assert (smaller / "sw.js").read_text(encoding="utf-8").splitlines()[0] != version
    assert (smaller / "vision.onnx").stat().st_size < (folder / "vision.onnx").stat().st_size


def test_what_is_too_large_gets_fewer_bits_or_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(file.stat().st_size for file in export_web(bundle, tmp_path / "page").rglob("*") if file.is_file())
    monkeypatch.setattr(web, "MOST_BYTES", size - 2_000)
    small = export_web(bundle, tmp_path / "small")
    assert sum(file.stat().st_size for file in small.rglob("*") if file.is_file()) < size
    monkeypatch.setattr(web, "MOST_BYTES", 1_000_000)
    with pytest.raises(ModelError, match=r"the page would be \d+\.\d MB, 1 MB are allowed; take a smaller model"):
        export_web(bundle, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_packed_is_said(bundle: Path, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="unknown vision weights 'fp8' for a browser; known: f16, int8"):
        export_web(bundle, tmp_path / "page", vision="fp8")
    bare = export_bundle(model_folder, tmp_path / "bare.bundle")
    with pytest.raises(
        ModelError, match=r"bare.bundle has no model.safetensors.* export the bundle again with --weights"
    ):
        export_web(bare, tmp_path / "page")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(ModelError, match="mine exists and is no folder of a page; give a new folder name"):
        export_web(bundle, tmp_path / "mine")
    damaged = tmp_path / "damaged.bundle"
    shutil.copytree(bundle, damaged)
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.safetensors is damaged: its sha256 begins"):
        export_web(damaged, tmp_path / "page")


def test_only_tokenizers_that_the_page_reads_are_taken(bundle: Path) -> None:
    tokenizer = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    assert "(?i:" not in word_pattern(tokenizer)
    for change in ({"normalizer": {"type": "NFC"}}, {"pre_tokenizer": {"type": "Metaspace"}}, {"pre_tokenizer": None}):
        with pytest.raises(ModelError, match="byte-level BPE with one word rule"):
            word_pattern(tokenizer | change)
    marks = [tokenizer["added_tokens"][0] | {"lstrip": True}]
    with pytest.raises(ModelError, match="take white space along"):
        word_pattern(tokenizer | {"added_tokens": marks})
