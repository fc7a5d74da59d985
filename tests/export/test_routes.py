"""What becomes what: bundles and GGUF files are stored anew as torch weights are, and mistakes are one line."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.export.tiny import summary

from handlens.cli.main import run
from handlens.core.images import Picture
from handlens.engine.answerer import open_bundle
from handlens.engine.bundle import Bundle
from handlens.engine.setup import Setup
from handlens.errors import ModelError
from handlens.export.quality import compare_quality, full_bundle, to_json
from handlens.export.quality_page import render
from handlens.export.vision_variants import agreement, calibration_feeds, quantise_static, write_variant
from handlens.measure.known import read_known
from handlens.measure.tune import space_of

BundleOf = Callable[..., Path]


def test_a_bundle_is_stored_anew_like_its_torch_weights(bundle_of: BundleOf, tmp_path: Path) -> None:
    out = tmp_path / "small"
    assert run(["export", str(bundle_of("F32")), "--to", str(out), "--quant", "Q5_K_M", "--vision", "fp16"]) == 0
    bundle = Bundle.open(out)
    bundle.check()
    assert (bundle.vision, bundle.language) == ("vision-fp16.onnx", "language-Q5_K_M.gguf")
    direct = bundle_of("Q5_K_M")
    assert summary(out / bundle.language) == summary(direct / "language-Q5_K_M.gguf")
    record = read_known(out)
    assert record is not None and record != read_known(bundle_of("F32")), "other weights, other answers"


def test_gguf_files_and_folders_are_stored_anew(
    bundle_of: BundleOf, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, small, file = tmp_path / "pair", tmp_path / "small", tmp_path / "one.gguf"
    assert run(["export", str(model_folder), "--to", str(pair), "--format", "gguf", "--quant", "F32"]) == 0
    assert run(["export", str(pair), "--to", str(small), "--quant", "Q6_K", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sorted(told["files"]) == ["config.json", "language-Q6_K.gguf", "mmproj.gguf", "tokenizer.json"]
    assert set(told["types"]) == {"F32", "Q6_K"} and 6.5 < told["bits_per_weight"] < 6.8
    assert run(["export", str(pair / "language-F32.gguf"), "--to", str(file), "--quant", "Q6_K"]) == 0
    assert file.read_bytes() == (small / "language-Q6_K.gguf").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quant", "Q3_K_M"], "unknown quantisation 'Q3_K_M'; did you mean"),
        (["--vision", "int4"], "unknown vision variant 'int4'; did you mean 'int8'"),
        (["--importance", "i.gguf", "--measure-importance", "j.gguf"], "give one of them"),
        (["--weights"], "has no torch weights"),
        (["--format", "gguf"], "stays a bundle"),
        ([], "give --requantise"),
    ],
)
def test_wrong_wishes_are_one_line(
    arguments: list[str], message: str, bundle_of: BundleOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(bundle_of("Q8_0")), "--to", str(tmp_path / "out"), "--quant", "Q4_0", *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["torch", "bundle"])
def test_a_bundle_may_hold_several_variants_and_keeps_its_own(
    kind: str, bundle_of: BundleOf, model_folder: Path, tmp_path: Path
) -> None:
    source, out = bundle_of("F32") if kind == "bundle" else model_folder, tmp_path / "many"
    more = ["--also", "Q4_0", "--also", "Q8_0", "--also", "int8", "--also", "fp32"]
    assert run(["export", str(source), "--to", str(out), "--quant", "Q8_0", *more]) == 0
    bundle = Bundle.open(out)
    bundle.check()
    assert (bundle.vision, bundle.language) == ("vision.onnx", "language-Q8_0.gguf"), "as they were asked for"
    assert {"vision-int8.onnx", "language-Q4_0.gguf"} < set(bundle.manifest["files"])
    assert summary(out / "language-Q4_0.gguf") == summary(bundle_of("Q4_0") / "language-Q4_0.gguf")
    assert sorted(file.name for file in out.iterdir()) == sorted([*bundle.manifest["files"], "manifest.json"])
    space = space_of(out)
    assert (space.visions, space.languages) == (("", "vision-int8.onnx"), ("", "language-Q4_0.gguf"))
    record = read_known(out)
    assert record is not None
    with contextlib.closing(open_bundle(out, setup=Setup(language="language-Q4_0.gguf"))) as lens:
        assert lens.info.quantisation == "Q4_0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--also", "Q3_K"], "unknown quantisation 'Q3_K'"),
        (["--format", "gguf", "--also", "Q4_0"], "only a bundle holds several variants"),
    ],
)
def test_variants_that_cannot_be_made_are_told_before_anything_is(
    arguments: list[str], message: str, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(model_folder), "--to", str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_manifest_that_names_a_half_it_lacks_is_refused(bundle_of: BundleOf, tmp_path: Path) -> None:
    shutil.copytree(bundle_of("F32"), tmp_path / "b")
    file = tmp_path / "b" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"language": "language-gone.gguf"}))
    with pytest.raises(ModelError, match=r"lacks language-gone\.gguf"):
        Bundle.open(tmp_path / "b")


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(
    bundle_of: BundleOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "bundle"
    assert run(["export", str(bundle_of("F32")), "--to", str(out), "--quant", "Q4_0"]) == 1
    assert f"cannot write {out}: Not a directory; give a folder that can be written" in capsys.readouterr().err
    assert run(["export", str(tmp_path / "none.gguf"), "--to", str(out), "--quant", "Q4_0"]) == 1
    assert f"there is no file {tmp_path / 'none.gguf'}" in capsys.readouterr().err


# ---- vision ----------------------------------------------------------------------------------------------------------


def test_vision_variants_see_what_the_graph_sees(bundle_of: BundleOf, pictures: list[Picture], tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_of("F32"))
    graph = bundle.folder / bundle.vision
    from handlens.engine.inputs import slice_inputs
    from handlens.export.vision_variants import slices_of

    def feeds():
        for pixels in slices_of(pictures, bundle.config):
            yield dict(
                zip(("patches", "position_ids", "key_positions"), slice_inputs(pixels, bundle.config), strict=True)
            )

    files = {kind: write_variant(graph, tmp_path, kind, bundle.config) for kind in ("bf16", "fp16", "int8")}
    files["int8-static"] = quantise_static(graph, tmp_path / "static.onnx", feeds())
    most = {"fp16": 1e-3, "bf16": 1e-2, "int8": 0.1, "int8-static": 0.2}
    for kind, file in files.items():
        found = agreement(graph, file, bundle.config, pictures)
        assert 0 < found["error"] < most[kind], (kind, found)
        # Position table and queries stay; all else is a half or a quarter.
        assert file.stat().st_size < 0.8 * graph.stat().st_size


def test_a_vision_half_that_fits_no_file_goes_to_8_bits_as_it_is_read(
    model_folder: Path, bundle_of: BundleOf, pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    full = Bundle.open(bundle_of("F32"))
    monkeypatch.setattr("handlens.export.halves.MOST_GRAPH_BYTES", 1000)
    assert run(["export", str(model_folder), "--to", str(tmp_path / "a"), "--quant", "F16"]) == 1
    assert "an ONNX file holds 2 GB; take --vision int8" in capsys.readouterr().err
    assert run(["export", str(model_folder), "--to", str(tmp_path / "b"), "--quant", "F16", "--vision", "int8"]) == 0
    bundle = Bundle.open(tmp_path / "b")
    bundle.check()
    found = agreement(full.folder / full.vision, bundle.folder / bundle.vision, bundle.config, pictures)
    assert found["error"] < 0.1


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_ranges_are_set_by_drawn_pictures(bundle_of: BundleOf, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_of("F32"))
    assert len(list(calibration_feeds(bundle.config))) >= 20
    out = tmp_path / "static"
    assert run(["export", str(bundle.folder), "--to", str(out), "--quant", "F32", "--vision", "int8-static"]) == 0
    assert Bundle.open(out).vision == "vision-int8-static.onnx"


# ---- the report ------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_model_loses_nothing_beside_itself_and_little_in_8_bits(bundle_of: BundleOf, tmp_path: Path) -> None:
    full = bundle_of("F32")
    copy = Path(shutil.copytree(full, tmp_path / "copy"))
    same = compare_quality(full, copy, questions=1, longest=3)
    assert same.groups == () and same.worst == () and same.same_answers == len(same.tasks) - 1 == 5
    assert [(task.count, task.gap.value) for task in same.tasks] == [(1, 0.0)] * 5 + [(5, 0.0)]
    losses = {mix.quant: mix.divergence for mix in same.mixes}
    assert losses["Q8_0"] < losses["Q6_K"] < losses["Q4_0"]
    found = compare_quality(full, bundle_of("Q8_0", "int8"), questions=1, longest=3)
    groups = {group.group: group for group in found.groups}
    # Only the vision half and matrices of many values were rounded; 8 bits of 32 values err by less than 1 %.
    assert 0 < groups["MLP, down"].weight_error < 0.01 and groups["MLP, down"].kinds == {"Q8_0": 2}
    assert groups["vision half"].weight_error > groups["MLP, down"].weight_error
    assert all(group.divergence is not None and group.divergence < 0.2 for group in found.groups)
    told = json.loads(json.dumps(to_json(found)))
    assert told["schema"] == "handlens.quality/1" and told["recommendation"] in render(found).replace("&#x27;", "'")


def test_full_precision_of_torch_weights_is_32_bits(model_folder: Path) -> None:
    with full_bundle(model_folder) as folder:
        assert open_bundle(folder, profile=False).info.quantisation == "F32"
    assert not folder.exists()
