"""A provider that fails is left for the processor, and that is said once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from handlens import PACKAGED
from handlens.engine import say, signed_weights
from handlens.engine.answerer import open_bundle
from handlens.engine.bundle import MANIFEST, Bundle
from handlens.engine.vision import OnnxVision, available_providers
from handlens.errors import ModelError


class Failing:
    """A session whose device went away."""

    def run(self, *_: object) -> None:
        raise RuntimeError("device lost\nat line 3")


def test_a_provider_that_fails_while_computing_is_replaced_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(say, "_said", set())
    bundle = Bundle.open(PACKAGED["nano"])
    half = OnnxVision(bundle.file(bundle.vision), bundle.config, threads=1)
    pixels = np.zeros((3, 28, 28), dtype=np.float32)
    expected = half.encode(pixels)
    half.provider, half._session = "cuda", Failing()
    np.testing.assert_array_equal(half.encode(pixels), expected)
    assert half.provider == "cpu"
    assert capsys.readouterr().err == "handlens: provider 'cuda' failed (device lost); going on with 'cpu'\n"
    half._session = Failing()
    with pytest.raises(ModelError, match=r"cannot be computed: device lost$"):
        half.encode(pixels)


def test_the_processor_is_always_there() -> None:
    assert "cpu" in available_providers()


def test_a_vision_half_of_another_model_is_refused(tmp_path: Path) -> None:
    import dataclasses

    bundle = Bundle.open(PACKAGED["nano"])
    config = bundle.config
    wider = dataclasses.replace(
        config,
        resampler=dataclasses.replace(config.resampler, width=512),
        language=dataclasses.replace(config.language, width=512),
    )
    with pytest.raises(ModelError, match=r"of width 256, the manifest says \d+ of 512; these halves do not belong"):
        OnnxVision(bundle.file(bundle.vision), wider, threads=1)


def test_too_little_memory_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 6 : Exception during initialization: std::bad_alloc")

    bundle = Bundle.open(PACKAGED["nano"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", full)
    with pytest.raises(ModelError, match=r"too little memory for the vision half .*vision\.onnx; close other programs"):
        OnnxVision(bundle.file(bundle.vision), bundle.config, threads=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(False, r"the vision half vision\.onnx needs about .* GB of memory"), (True, r"vision\.onnx\.data is damaged")],
)
def test_weights_beside_the_graph_count_and_are_checked(
    damage: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handlens.engine import belong

    folder = tmp_path / "nano"
    shutil.copytree(PACKAGED["nano"], folder)
    beside = folder / "vision.onnx.data"
    with beside.open("wb") as stream:
        stream.truncate(3_000_000_000)  # takes no room on the disk
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][beside.name] = {"bytes": 3_000_000_000, "sha256": "0" * 64}
    if damage:
        beside.write_bytes(b"other")
        manifest["files"][beside.name]["bytes"] = 5
    (folder / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr(belong, "total_bytes", lambda: 1_000_000_000)
    with pytest.raises(ModelError, match=message):
        open_bundle(folder).open_vision()


def test_signed_weights_leave_every_bit_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms, on a graph with weights inside and on one with weights beside it."""
    onnx = pytest.importorskip("onnx")
    from handlens.export.onnx import quantise_vision

    if not signed_weights.pays_here():
        pytest.skip("this processor has no AVX-512 VNNI; signed weights would saturate")
    bundle = Bundle.open(PACKAGED["nano"])
    inside = quantise_vision(bundle.file("vision.onnx"), tmp_path / "inside.onnx")
    onnx.save(onnx.load(str(inside)), str(tmp_path / "beside.onnx"), save_as_external_data=True, location="beside.data")
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 224, 224)).astype(np.float32)
    for file in (inside, tmp_path / "beside.onnx"):
        found = []
        for pays in (True, False):
            monkeypatch.setattr(signed_weights, "pays_here", lambda pays=pays: pays)
            found.append(OnnxVision(file, bundle.config, threads=1).encode(pixels))
        np.testing.assert_array_equal(*found)


def test_signed_weights_lose_128_with_their_zeros(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from handlens.export.onnx import quantise_vision

    file = quantise_vision(Bundle.open(PACKAGED["nano"]).file("vision.onnx"), tmp_path / "vision.onnx")
    signed = signed_weights.read_signed(file)
    assert signed is not None
    before, after = onnx.load(str(file)).graph, onnx.load_from_string(signed.graph).graph
    names = {name for node in before.node if node.op_type == "MatMulInteger" for name in (node.input[1], node.input[3])}
    assert len(names) == 48
    for old, new in zip(before.initializer, after.initializer, strict=True):
        shift = 128 if old.name in names else 0
        values = onnx.numpy_helper.to_array(old).astype(np.int64)
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(new).astype(np.int64), values - shift)


def test_a_graph_in_floats_has_nothing_to_change() -> None:
    assert signed_weights.read_signed(Bundle.open(PACKAGED["nano"]).file("vision.onnx")) is None
