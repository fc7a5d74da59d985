"""The two files of stock llama.cpp: equal to those of its own converters, and they compute the same."""

import functools
import hashlib
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from handlens.config import HandlensConfig, LanguageConfig, LongRope, ResamplerConfig, VisionConfig
from handlens.engine.mtmd import check_pair
from handlens.errors import ModelError
from handlens.export.bundle import export_bundle
from handlens.export.llama_cpp import GgufFolder, export_gguf, hazards
from handlens.model.checkpoint import save_model
from handlens.model.vlm import build_model
from handlens.train.vocabulary import save_vocabulary, train_vocabulary
from handlens.verify.case import standard_cases
from handlens.verify.contract import Noise, compare_case
from handlens.verify.expected import Expected
from handlens.verify.run import exported_for_llama_cpp, verify_models
from handlens.verify.side import open_side

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
RECOMPUTED = "resampler.pos_embed_k"
"""Sines of 32 bits differ in the last place between processors; llama.cpp does not use the values."""


def golden(version: str) -> Path:
    if not (GOLDEN / version / "gguf.json").is_file():
        pytest.skip(f"the whole reference of {version} is not at hand")
    return GOLDEN / version


@functools.cache
def exported(version: str, kind: str, folder: Path) -> Path:
    source = golden(version)
    marks = json.loads((source / "expected.json").read_text(encoding="utf-8"))["toy_tokenizer"]["special_ids"]
    return export_gguf(source, folder / f"{version}-{kind}", quant=kind, marks=marks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.mark.parametrize("kind", ["F32", pytest.param("F16", marks=pytest.mark.soak)])
@pytest.mark.parametrize("version", ["2.5", "2.6", "4.5"])
def test_files_equal_those_of_the_converters_of_llama_cpp(version: str, kind: str, folder: Path) -> None:
    oracle = json.loads((golden(version) / "gguf.json").read_text(encoding="utf-8"))
    files = GgufFolder.open(exported(version, kind, folder))
    for half, file in (("lm", files.language), ("mmproj", files.mmproj)):
        wanted = oracle[half][kind.lower()]
        reader = gguf.GGUFReader(file)
        found = {
            tensor.name: {
                "ne": tensor.shape.tolist(),
                "type": tensor.tensor_type.name,
                "sha256": hashlib.sha256(tensor.data.tobytes()).hexdigest(),
            }
            for tensor in reader.tensors
        }
        expected = {tensor.pop("name"): tensor for tensor in wanted["tensors"]}
        for tensors in (found, expected):
            tensors.get(RECOMPUTED, {}).pop("sha256", None)
        assert found == expected
        for key, fact in wanted["metadata"].items():
            assert reader.fields[key].contents() == fact["value"], key


def same(model: Path, pair: Path, names: tuple[str, ...]) -> None:
    ours, theirs = open_side(pair), open_side(model)
    cases = standard_cases(ours.family, ours.config.slicing.side_px)
    for case in cases:
        if case.name in names:
            noise = Noise(visual=ours.precision.visual_noise, logit=ours.precision.logit_noise)
            outcomes = compare_case(
                case.name, Expected.of(theirs.trace(case)), ours.trace(case), noise, ours.family, ""
            )
            assert [str(outcome) for outcome in outcomes if outcome.agrees is False] == []


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small 4.0 whose rotary factors matter, with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("four")
    vocabulary = train_vocabulary(["name a colour, then count to three", "what is drawn here? describe it"] * 9, 340)
    save_vocabulary(vocabulary, folder / "tokenizer.json")
    factors = tuple(float(value) for value in np.linspace(1.0, 6.0, 32))
    config = HandlensConfig(
        family="4.0",
        vision=VisionConfig(width=144, mlp_width=160, num_layers=2, num_heads=2),
        resampler=ResamplerConfig(num_queries=64, width=256, vision_width=144),
        language=LanguageConfig(
            vocab_size=vocabulary.get_vocab_size(),
            width=256,
            mlp_width=512,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            max_positions=4096,
            long_rope=LongRope(short=factors, long=factors, original_positions=4098, factor=1.0),
        ),
    )
    model = build_model(config)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.1, generator=draw)
            else:
                weight.normal_(0.0, weight[0].numel() ** -0.5, generator=draw)
    save_model(model, folder, folder / "tokenizer.json")
    return folder


def test_rotary_factors_of_4_0_reach_llama_cpp(four: Path, tmp_path: Path) -> None:
    pair = export_gguf(four, tmp_path / "pair", quant="F32")
    same(four, pair, ("text",))
    # Without the factors the same file computes something else: the test can fail.
    reader = gguf.GGUFReader(GgufFolder.open(pair).language, "r+")
    for tensor in reader.tensors:
        if tensor.name.startswith("rope_factors"):
            tensor.data[:] = 1.0
    reader.data.flush()
    with pytest.raises(AssertionError, match="logits differ"):
        same(four, pair, ("text",))


def test_llama_cpp_sees_like_torch(four: Path, tmp_path: Path) -> None:
    same(four, export_gguf(four, tmp_path / "pair", quant="F32"), ("square",))


@pytest.mark.soak
@pytest.mark.parametrize("version", ["2.6", "4.0", "4.5"])
def test_llama_cpp_agrees_on_text_one_slice_and_nine(version: str, four: Path) -> None:
    model = four if version == "4.0" else golden(version)
    with exported_for_llama_cpp(model) as pair:
        report = verify_models(pair, model, kinds=("gguf", "torch"))
    assert report.agrees, report.lines()


@pytest.mark.soak
def test_a_bundle_of_4_0_agrees(four: Path, tmp_path: Path) -> None:
    report = verify_models(export_bundle(four, tmp_path / "bundle", quant="F32"), four)
    assert report.agrees, report.lines()


@pytest.mark.soak
def test_llama_cpp_reads_2_5_but_sees_otherwise() -> None:
    with exported_for_llama_cpp(golden("2.5")) as pair:
        report = verify_models(pair, golden("2.5"), kinds=("gguf", "torch"))
    first = report.first
    assert first is not None and first.stage == "visual tokens" and first.gap > 0.5
    text = {outcome.stage: outcome.agrees for outcome in report.outcomes if outcome.case == "text"}
    assert text["logits"] and text["greedy text"]
    assert "row 0" in hazards(golden("2.5"), "gguf")[0]


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_vision_file_of_another_model_is_refused(four: Path, tmp_path: Path) -> None:
    pair = GgufFolder.open(export_gguf(four, tmp_path / "pair", quant="F16"))
    other = tmp_path / "wide-mmproj.gguf"
    writer = gguf.GGUFWriter(other, "clip")
    writer.add_tensor("resampler.proj.weight", np.zeros((512, 512), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"makes visual tokens of width 512, .* reads width 256"):
        check_pair(other, pair.language)
    with pytest.raises(ModelError, match="the file of a language model is needed"):
        check_pair(pair.mmproj, pair.mmproj)
    with pytest.raises(ModelError, match=r"an mmproj file \('clip'\) is needed"):
        check_pair(pair.language, pair.language)


@pytest.mark.parametrize("name", ["language-F16.gguf", "mmproj.gguf"])
@pytest.mark.parametrize("kept", [3, 200, -64])
def test_a_cut_file_is_refused(name: str, kept: int, four: Path, tmp_path: Path) -> None:
    pair = export_gguf(four, tmp_path / "pair", quant="F16")
    file = pair / name
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match=rf"{name}: it is (damaged|no GGUF file)"):
        open_side(pair)


def test_families_without_a_vision_part_and_full_folders_are_refused(four: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"family 2\.0 has no vision part for llama.cpp here"):
        export_gguf(golden("2.0"), tmp_path / "two")
    assert not (tmp_path / "two").exists()
    (tmp_path / "full").mkdir()
    shutil.copy(four / "tokenizer.json", tmp_path / "full")
    with pytest.raises(ModelError, match="holds no GGUF model"):
        export_gguf(four, tmp_path / "full")
