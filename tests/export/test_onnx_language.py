from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from handlens.config import LanguageConfig
from handlens.engine.llama import dequantise_rows, quantise_rows
from handlens.errors import ModelError
from handlens.export.onnx import GraphWriter, write_vision
from handlens.export.onnx_language import write_language
from handlens.export.packed import PackedGraph, split_blocks
from handlens.model.vlm import HandlensModel


@pytest.fixture(scope="module")
def weights(model: HandlensModel) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in model.state_dict().items()}


@pytest.fixture(scope="module")
def language(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("llm."): values for name, values in weights.items() if name.startswith("llm.")}


class Continued:
    """Runs the graph and keeps what it has to be handed back."""

    def __init__(self, file: Path, config: LanguageConfig) -> None:
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        width = config.num_kv_heads * config.head_dim
        self.past = {
            field.name: np.zeros((0, width), dtype=np.float32)
            for field in self.session.get_inputs()
            if field.name.startswith("past.")
        }

    def read(self, rows: np.ndarray) -> np.ndarray:
        begin = len(next(iter(self.past.values())))
        feeds = {"embeddings": rows, "positions": np.arange(begin, begin + len(rows)), **self.past}
        names = [field.name for field in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, feeds), strict=True))
        self.past = {
            name: np.concatenate([kept, found[name.replace("past", "new")]]) for name, kept in self.past.items()
        }
        return found["logits"][0]


@pytest.fixture(scope="module")
def ids(model: HandlensModel) -> np.ndarray:
    return np.random.default_rng(3).integers(0, model.config.typed().language.vocab_size, 90)


def test_logits_equal_torch_in_one_reading_and_token_by_token(model, language, ids, tmp_path: Path) -> None:
    config = model.config.typed().language
    file = write_language(language, config, tmp_path / "language.onnx", graph=GraphWriter())
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)
    with torch.no_grad():
        expected = model.llm(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
    rows = language["model.embed_tokens.weight"][ids]
    np.testing.assert_allclose(Continued(file, config).read(rows), expected[-1], atol=2e-4)
    halves = Continued(file, config)
    for begin, end in ((0, 50), (50, 51), (51, 52), (52, 90)):
        np.testing.assert_allclose(halves.read(rows[begin:end]), expected[end - 1], atol=2e-4)
    assert expected.std() > 0.5, "flat logits would prove nothing"


def test_eight_bits_are_the_weights_of_q8_0(model, language, ids, tmp_path: Path) -> None:
    config = model.config.typed().language
    rounded = {
        name: dequantise_rows(quantise_rows(values, "Q8_0"), 8, values.shape[1]) if values.ndim == 2 else values
        for name, values in language.items()
    }
    plain = write_language(rounded, config, tmp_path / "plain.onnx", graph=GraphWriter())
    packed = write_language(language, config, tmp_path / "packed.onnx")
    assert packed.stat().st_size < 0.4 * plain.stat().st_size
    rows = language["model.embed_tokens.weight"][ids]
    np.testing.assert_array_equal(Continued(packed, config).read(rows), Continued(plain, config).read(rows))


def test_blocks_are_scales_and_numbers() -> None:
    row = np.arange(64, dtype=np.float32)[None] - 20
    numbers, scales = split_blocks(quantise_rows(row, "Q8_0"))
    assert numbers.shape == (1, 2, 32)
    # Block 0 runs from -20 to 11, block 1 from 12 to 43: a scale is the largest magnitude / 127.
    np.testing.assert_allclose(scales[0, :, 0], [20 / 127, 43 / 127], rtol=1e-3)
    assert numbers[0, 0, 0] == -127
    assert numbers[0, 1, -1] == 127


def test_half_precision_keeps_bfloat16_weights(model, weights, tmp_path: Path) -> None:
    config = model.config.typed()
    short = {name: torch.from_numpy(values).bfloat16().float().numpy() for name, values in weights.items()}
    plain = write_vision(short, config, tmp_path / "plain.onnx")
    packed = write_vision(short, config, tmp_path / "packed.onnx", graph=PackedGraph("f16"))
    assert packed.stat().st_size < 0.55 * plain.stat().st_size
    onnx.checker.check_model(onnx.load(str(packed)), full_check=True)
    draw = np.random.default_rng(1)
    patches = draw.uniform(-1, 1, (20, 588)).astype(np.float32)
    keys = draw.uniform(-1, 1, (20, config.resampler.width)).astype(np.float32)
    feeds = {"patches": patches, "position_ids": np.arange(20), "key_positions": keys}
    one, other = (onnxruntime.InferenceSession(str(file)).run(None, feeds)[0] for file in (plain, packed))
    np.testing.assert_allclose(other, one, atol=2e-3 * one.std())


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    config = replace(LanguageConfig(), kind="qwen2")
    with pytest.raises(ModelError, match="kind qwen2; an ONNX language half is written for plain Llama models"):
        write_language({}, config, tmp_path / "language.onnx")
    with pytest.raises(ModelError, match="has scaled branches"):
        write_language({}, replace(LanguageConfig(), scale_emb=12.0), tmp_path / "language.onnx")
    assert not list(tmp_path.iterdir())
