"""The importance matrix that is measured: known answers of the first layer, and what it is for."""

from pathlib import Path

import numpy as np
import pytest
from tests.export.tiny import tiny_shape, tiny_weights

from handlens.errors import ModelError
from handlens.export.gguf import write_gguf
from handlens.export.importance import read_importance, write_importance
from handlens.export.observe import measure_importance


def test_the_inputs_of_the_first_layer_are_known(tmp_path: Path) -> None:
    shape = tiny_shape("qwen3-3-layers-tied-128")
    weights = tiny_weights(shape)
    file = write_gguf(weights, shape, None, tmp_path / "a.gguf", quant="F32")
    prompts = [np.random.default_rng(seed).normal(size=(300, 128)).astype(np.float32) for seed in range(2)]
    found = measure_importance(file, prompts, dataset="noise")
    rows = np.concatenate(prompts).astype(np.float64)
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + shape.norm_eps)
    normed = normed * weights["model.layers.0.input_layernorm.weight"]
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found.sums[f"blk.0.{name}.weight"], (normed**2).sum(axis=0), rtol=1e-4)
    # Every matrix of every layer, the last layer too, saw every token.
    assert set(found.counts.values()) == {600.0} and len(found.counts) == 3 * 7 and found.chunks == 2
    again = read_importance(write_importance(found, tmp_path / "i.gguf", chunk_tokens=300))
    assert again.counts == found.counts and again.dataset == "noise"
    np.testing.assert_array_equal(again.sums["blk.2.ffn_down.weight"], found.sums["blk.2.ffn_down.weight"])


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="cannot load"):
        measure_importance(tmp_path / "a.gguf", [], dataset="")
