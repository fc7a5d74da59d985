"""The contract finds what differs, and where first."""

import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from handlens.cli.main import handlens, run
from handlens.errors import DataError
from handlens.export.tensor_file import read_tensors, write_tensors
from handlens.verify.case import STAGES
from handlens.verify.reference import Reference
from handlens.verify.run import record_model, verify_models, verify_reference


def few_cases(reference: Path, folder: Path, names: tuple[str, ...] = ("text", "square")) -> Path:
    """A copy of a reference with few cases, so that a test is quick."""
    shutil.copytree(reference, folder, ignore=shutil.ignore_patterns("*.md", "gguf.json"))
    fields = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    fields["cases"] = [case for case in fields["cases"] if case["name"] in names]
    (folder / "expected.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def small(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_cases(reference, tmp_path_factory.mktemp("small") / "reference")


def test_the_released_computation_agrees_in_every_stage(small: Path) -> None:
    report = verify_reference(small, small)
    assert report.agrees and report.first is None
    document = report.to_json()
    assert document["stages"] == dict.fromkeys(STAGES, "agrees")
    assert {case["name"] for case in document["cases"]} == {"square", "text"}


Damage = Callable[[dict[str, np.ndarray]], None]


def scaled(name: str, factor: float) -> Damage:
    def damage(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = (tensors[name] * np.float32(factor)).astype(np.float32)

    return damage


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        ("vision tokens", scaled("vpm.encoder.layers.1.mlp.fc1.weight", 1.01)),
        ("visual tokens", scaled("resampler.proj", 1.001)),
        ("logits", scaled("llm.model.layers.0.self_attn.q_proj.weight", 1.01)),
    ],
)
def test_a_changed_weight_shows_first_where_it_acts(small: Path, tmp_path: Path, stage: str, damage: Damage) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(small, model)
    tensors = {name: values.float().numpy() for name, values in load_file(str(small / "model.safetensors")).items()}
    damage(tensors)
    save_file({name: torch.from_numpy(values) for name, values in tensors.items()}, str(model / "model.safetensors"))
    first = verify_reference(model, small).first
    assert first is not None and first.stage == stage
    assert first.cause and first.gap > first.tolerance


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("slice grid", lambda case: case["tgt_sizes"].__setitem__(0, [31, 33])),
        ("pixels", lambda case: case["pixel_sha256"].__setitem__(0, "0" * 64)),
        ("prompt ids", lambda case: case["input_ids"].__setitem__(3, 7)),
        ("greedy text", lambda case: case["greedy"].__setitem__(2, 7)),
    ],
)
def test_a_changed_fact_of_the_reference_is_found(
    small: Path, tmp_path: Path, stage: str, change: Callable[[dict], None]
) -> None:
    copy = tmp_path / "reference"
    shutil.copytree(small, copy)
    fields = json.loads((copy / "expected.json").read_text(encoding="utf-8"))
    change(next(case for case in fields["cases"] if case["name"] == "square"))
    (copy / "expected.json").write_text(json.dumps(fields), encoding="utf-8")
    first = verify_reference(small, copy).first
    assert first is not None and (first.case, first.stage) == ("square", stage)


def test_changed_positions_are_found(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "reference"
    shutil.copytree(small, copy)
    tensors = {name: np.array(values) for name, values in read_tensors(copy / "expected.safetensors").items()}
    tensors["square.vit_position_ids"][5] += 1
    write_tensors(tensors, copy / "expected.safetensors")
    first = verify_reference(small, copy).first
    assert first is not None and first.stage == "patch positions" and first.detail.startswith("patch 5 has row")


def test_what_is_recorded_is_accepted_and_a_record_has_the_released_form(small: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    verify_reference(small, small, record=recorded)
    assert verify_reference(small, recorded).agrees
    ours, theirs = Reference.open(recorded), Reference.open(small)
    for case in theirs.fields["cases"]:
        mine = next(other for other in ours.fields["cases"] if other["name"] == case["name"])
        assert not set(case) - set(mine) - {"resampler_groups"}
        for key in ("input_ids", "image_bound", "expanded_prompt", "n_slices", "greedy", "prompt"):
            assert mine[key] == case[key]
        assert mine.get("pixel_sha256") == case.get("pixel_sha256")
        assert mine["tensors"].keys() == case["tensors"].keys()
        for name, shape in case["tensors"].items():
            kept = ours.tensors[f"{case['name']}.{name}"]
            assert list(kept.shape) == shape and kept.dtype == theirs.tensors[f"{case['name']}.{name}"].dtype


def test_a_bundle_is_recorded_and_accepted(tmp_path: Path) -> None:
    from handlens import PACKAGED

    recorded = record_model(PACKAGED["nano"], tmp_path / "nano").recorded
    report = verify_reference(PACKAGED["nano"], Path(recorded))
    assert report.agrees
    assert report.to_json()["stages"]["visual tokens"] == "agrees"
    assert report.to_json()["stages"]["vision tokens"] == "not compared"


def test_the_shipped_bundle_agrees_with_its_torch_weights() -> None:
    from handlens import PACKAGED

    if not (PACKAGED["nano"] / "model.safetensors").is_file():
        pytest.skip("the shipped bundle has no torch weights")
    assert verify_models(PACKAGED["nano"], PACKAGED["nano"], kinds=("bundle", "torch")).agrees


@pytest.mark.soak
@pytest.mark.parametrize("version", ["2.6", "4.5"])
def test_torch_bundle_pair_and_recording_of_a_family_agree(
    version: str, golden: Callable[[str], Path], tmp_path: Path
) -> None:
    """The released layout with a tokenizer, its own bundle, its own GGUF pair, and what the bundle recorded."""
    from handlens.export.bundle import export_bundle
    from handlens.export.llama_cpp import export_gguf
    from handlens.families import family_named
    from handlens.models.vocabulary import write_random_vocabulary

    model = tmp_path / "model"
    shutil.copytree(golden(version), model, ignore=shutil.ignore_patterns("expected.*"))
    write_random_vocabulary(model / "tokenizer.json", 512, family_named(version))
    bundle = export_bundle(model, tmp_path / "bundle", quant="F32")
    pair = export_gguf(model, tmp_path / "pair", quant="F32")
    recorded = Path(record_model(bundle, tmp_path / "recorded").recorded)
    reports = [
        verify_models(bundle, model), verify_models(pair, bundle), verify_reference(model, recorded),
        verify_reference(pair, recorded),
    ]  # fmt: skip
    assert [report.lines() for report in reports if not report.agrees] == []


# ---- command line ----------------------------------------------------------------------------------------------------


def test_exit_code_and_json(small: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        handlens, ["verify", str(small), "--reference", str(small), "--json"], standalone_mode=False
    )
    assert done.return_value == 0 and json.loads(done.stdout)["agrees"] is True
    copy = tmp_path / "reference"
    shutil.copytree(small, copy)
    fields = json.loads((copy / "expected.json").read_text(encoding="utf-8"))
    fields["cases"][0]["greedy"] = [1] * 16
    (copy / "expected.json").write_text(json.dumps(fields), encoding="utf-8")
    done = CliRunner().invoke(
        handlens, ["verify", str(small), "--reference", str(copy), "--json"], standalone_mode=False
    )
    document = json.loads(done.stdout)
    assert done.return_value == 1 and document["agrees"] is False
    assert document["first_difference"]["stage"] == "greedy text"


def test_packed_files_are_unpacked_for_the_time_being(small: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    shutil.copytree(small, packed)
    for name in ("expected.safetensors", "model.safetensors"):
        (packed / f"{name}.xz").write_bytes(lzma.compress((packed / name).read_bytes(), preset=0))
        (packed / name).unlink()
    before = sorted(packed.iterdir())
    report = verify_reference(packed, packed)
    assert report.agrees
    assert report.model.startswith(str(packed)) and report.against == f"the reference {packed}"
    assert sorted(packed.iterdir()) == before
    (packed / "model.safetensors.xz").write_bytes((packed / "model.safetensors.xz").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"model\.safetensors\.xz is damaged .*; copy it again$"):
        verify_reference(packed, packed)


def test_damaged_input_is_one_line(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(small), "--reference", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("handlens verify: ") and "has no expected.json" in error and error.count("\n") == 1
    assert run(["verify", "nowhere"]) == 1
    assert run(["verify", str(small), "--reference", str(small), "--against", "nano"]) == 2


def test_a_cut_reference_is_refused(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "reference"
    shutil.copytree(small, copy)
    file = copy / "expected.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="is cut or damaged"):
        Reference.open(copy)
