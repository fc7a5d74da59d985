import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from handlens.engine.bucket import BucketVision, bucket_files, write_context
from handlens.engine.inputs import slice_inputs
from handlens.engine.vision import OnnxVision
from handlens.errors import ModelError, SettingError
from handlens.export.npu import write_bucket
from handlens.export.onnx import quantise_vision, write_vision
from handlens.model.vlm import HandlensModel

SHAPES = [(112, 112), (98, 126), (14, 140), (70, 154)]


@pytest.fixture(scope="module")
def graph(model: HandlensModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: values.numpy() for name, values in model.state_dict().items()}
    return write_vision(weights, model.config.typed(), tmp_path_factory.mktemp("npu") / "vision.onnx")


def drawn(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (3, *shape)).astype(np.float32)


def feeds_of(shape: tuple[int, int], seed: int, config) -> dict[str, np.ndarray]:
    return dict(
        zip(("patches", "position_ids", "key_positions"), slice_inputs(drawn(shape, seed), config), strict=True)
    )


def test_a_filled_bucket_gives_what_the_slice_alone_gives(graph: Path, model: HandlensModel, tmp_path: Path) -> None:
    config = model.config.typed()
    bucket = write_bucket(graph, tmp_path, config, patches=64)
    fixed = onnx.load(str(bucket))
    assert all(side.dim_value for field in fixed.graph.input for side in field.type.tensor_type.shape.dim)
    full, half = OnnxVision(graph, config, threads=1), BucketVision(bucket, graph, config, provider="cpu")
    for seed, shape in enumerate(SHAPES):
        np.testing.assert_allclose(half.encode(drawn(shape, seed)), full.encode(drawn(shape, seed)), atol=1e-4)
    assert half.num_outside == 0
    # 8x9 patches are more than 64: the graph of any shape takes them.
    np.testing.assert_array_equal(half.encode(drawn((112, 126), 9)), full.encode(drawn((112, 126), 9)))
    assert half.num_outside == 1


def test_16_bit_activations_and_8_bit_weights_stay_near(graph: Path, model: HandlensModel, tmp_path: Path) -> None:
    config = model.config.typed()
    feeds = [feeds_of(shape, seed, config) for seed, shape in enumerate([*SHAPES, (140, 140)])]
    bucket = write_bucket(graph, tmp_path, config, patches=64, feeds=feeds)
    assert bucket.stat().st_size < 0.5 * graph.stat().st_size
    kinds = [node.op_type for node in onnx.load(str(bucket)).graph.node]
    assert kinds.count("QuantizeLinear") > kinds.count("MatMul") > 0
    full, half = OnnxVision(graph, config, threads=1), BucketVision(bucket, graph, config, provider="cpu")
    for shape in SHAPES[:2]:
        expected = full.encode(drawn(shape, 50))
        error = half.encode(drawn(shape, 50)) - expected
        # 8-bit weights with one scale per matrix: a few per cent.
        assert 0 < np.sqrt((error**2).mean()) < 0.06 * expected.std()


def test_what_cannot_be_is_said(graph: Path, model: HandlensModel, tmp_path: Path) -> None:
    config = model.config.typed()
    with pytest.raises(SettingError, match="no slice for calibration fits into 4 patches; take a larger bucket"):
        write_bucket(graph, tmp_path, config, patches=4, feeds=[feeds_of((112, 112), 0, config)])
    with pytest.raises(SettingError, match="a bucket of 0 patches holds no slice"):
        write_bucket(graph, tmp_path, config, patches=0)
    eight = quantise_vision(graph, tmp_path / "vision-int8.onnx")
    (tmp_path / "sub").mkdir()
    bucket = write_bucket(graph, tmp_path / "sub", config, patches=64)
    with pytest.raises(SettingError, match=r"provider 'coreml' is not in the installed onnxruntime; available: .*cpu"):
        BucketVision(bucket, eight, config, provider="coreml")
    bucket_files(tmp_path / "sub", 64)[1].unlink()
    with pytest.raises(
        ModelError, match=r"vision-npu-64.onnx is no whole bucket .* write it again with `handlens npu`"
    ):
        BucketVision(bucket, eight, config)


def test_the_simulated_processor_agrees_with_the_processor(graph: Path, model: HandlensModel, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the simulator comes with pip install onnxruntime-qnn")
    config = model.config.typed()
    feeds = [feeds_of(shape, seed, config) for seed, shape in enumerate(SHAPES)]
    bucket = write_bucket(graph, tmp_path, config, patches=64, feeds=feeds)
    expected = BucketVision(bucket, graph, config, provider="cpu").encode(drawn((112, 112), 50))
    found = BucketVision(bucket, graph, config, provider="qnn").encode(drawn((112, 112), 50))
    assert np.abs(found - expected).max() < 0.05 * expected.std()
    context = write_context(bucket, tmp_path / "context.onnx", soc_model=57, htp_arch=75)
    assert context.is_file()
    assert list(tmp_path.glob("context*.bin"))


@pytest.mark.soak
def test_the_command_says_how_far_it_agrees(tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra 'data'")
    from handlens.cli.main import run

    assert run(["npu", "nano", "--to", str(tmp_path), "--slices", "4", "--check", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cosine_mean"] > 0.99
    assert run(["npu", "nano", "--to", str(tmp_path), "--slices", "1", "--patches", "5"]) == 1
    assert "no slice for calibration fits into 5 patches" in capsys.readouterr().err
