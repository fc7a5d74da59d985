from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from handlens.engine.inputs import slice_inputs
from handlens.engine.vision import OnnxVision
from handlens.errors import ModelError, SettingError
from handlens.export.onnx import quantise_vision, write_vision
from handlens.model.halves import TorchVision
from handlens.model.vlm import HandlensModel

SHAPES = [(112, 112), (14, 14), (14, 980), (112, 154), (168, 70)]


@pytest.fixture(scope="module")
def graph(model: HandlensModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: values.numpy() for name, values in model.state_dict().items()}
    return write_vision(weights, model.config.typed(), tmp_path_factory.mktemp("vision") / "vision.onnx")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).uniform(-1, 1, (3, height, width)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_visual_tokens_equal_torch(height: int, width: int, graph: Path, model: HandlensModel) -> None:
    pixels = noise(height, width)
    expected = TorchVision(model).encode(pixels)
    found = OnnxVision(graph, model.config.typed(), threads=1).encode(pixels)
    assert expected.std() > 0.1, "flat visual tokens would prove nothing"
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_padding_in_a_torch_batch_gives_what_one_slice_alone_gives(graph: Path, model: HandlensModel) -> None:
    config = model.config.typed()
    inputs = [slice_inputs(noise(*shape), config) for shape in SHAPES[:2]]
    most = max(len(patches) for patches, _, _ in inputs)
    padded = [
        torch.stack(
            [torch.from_numpy(np.pad(part, [(0, most - len(part))] + [(0, 0)] * (part.ndim - 1))) for part in parts]
        )
        for parts in zip(*inputs, strict=True)
    ]
    is_real = torch.tensor([[place < len(patches) for place in range(most)] for patches, _, _ in inputs])
    with torch.no_grad():
        together = model.resampler(model.vpm(padded[0], padded[1], is_real), padded[2], is_real).numpy()
    half = OnnxVision(graph, config, threads=1)
    for row, shape in enumerate(SHAPES[:2]):
        np.testing.assert_allclose(half.encode(noise(*shape)), together[row], atol=1e-4)


def test_eight_bits_stay_near(graph: Path, model: HandlensModel, tmp_path: Path) -> None:
    small = quantise_vision(graph, tmp_path / "vision-int8.onnx")
    assert small.stat().st_size < graph.stat().st_size
    expected = TorchVision(model).encode(noise(112, 112))
    error = OnnxVision(small, model.config.typed(), threads=1).encode(noise(112, 112)) - expected
    # 256 levels in every product of eight layers: a few per cent. Saturating kernels give 25 per cent.
    assert 0 < np.sqrt((error**2).mean()) < 0.06 * expected.std()


def test_the_file_names_no_machine_and_stands_alone(graph: Path) -> None:
    model = onnx.load(str(graph), load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b"/src/" not in graph.read_bytes()
    assert [field.name for field in model.graph.input] == ["patches", "position_ids", "key_positions"]
    assert [field.name for field in model.graph.output] == ["visual_tokens"]


def test_the_same_weights_give_the_same_bytes(graph: Path, model: HandlensModel, tmp_path: Path) -> None:
    weights = {name: values.numpy() for name, values in model.state_dict().items()}
    again = write_vision(weights, model.config.typed(), tmp_path / "again.onnx")
    assert again.read_bytes() == graph.read_bytes()


def test_providers_that_do_not_exist_are_refused(graph: Path, model: HandlensModel) -> None:
    with pytest.raises(SettingError, match="unknown provider 'cdua'; did you mean 'cuda'"):
        OnnxVision(graph, model.config.typed(), provider="cdua")
    with pytest.raises(SettingError, match=r"provider 'qnn' is not in the installed onnxruntime; available: .*cpu"):
        OnnxVision(graph, model.config.typed(), provider="qnn")


def test_a_damaged_graph_is_one_line(model: HandlensModel, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"cannot run .*junk.onnx") as caught:
        OnnxVision(tmp_path / "junk.onnx", model.config.typed())
    assert "\n" not in str(caught.value)
