"""Language models of a few thousand weights, drawn the same everywhere."""

import hashlib
from pathlib import Path

import gguf
import numpy as np

from handlens.config import LanguageConfig
from handlens.export.gguf import tensor_names
from handlens.export.importance import Importance

SHAPES = {
    # Tied, and rows that fill blocks of 256.
    "llama-8-layers-tied": ("llama", 256, 512, 8, 2, 40, True),
    "llama-9-layers": ("llama", 256, 256, 9, 4, 40, False),
    # MLP rows of 480: K types fall back to blocks of 32.
    "qwen2-17-layers-480": ("qwen2", 128, 480, 17, 2, 40, False),
    "qwen3-3-layers-tied-128": ("qwen3", 128, 256, 3, 4, 40, True),
    "minicpm-5-layers-192": ("minicpm", 192, 320, 5, 4, 40, False),
    # What llama.cpp takes for the 70B has a rule of its own.
    "llama-80-layers": ("llama", 32, 256, 80, 2, 8, False),
    "qwen2-80-layers": ("qwen2", 32, 256, 80, 4, 8, False),
}
"""Name -> kind, width, MLP width, layers, heads of keys, vocabulary, tied."""


def tiny_shape(name: str) -> LanguageConfig:
    """Return the shape of a name."""
    kind, width, mlp_width, num_layers, num_kv_heads, vocab_size, tied = SHAPES[name]
    return LanguageConfig(
        kind=kind, width=width, mlp_width=mlp_width, num_layers=num_layers, num_heads=4, num_kv_heads=num_kv_heads,
        vocab_size=vocab_size, tied=tied, max_positions=512,
    )  # fmt: skip


def tiny_weights(shape: LanguageConfig) -> dict[str, np.ndarray]:
    """Return weights under the names of transformers."""
    draw = np.random.default_rng(0)
    return {
        theirs: draw.standard_normal(size, dtype=np.float32) * np.float32(0.1) + np.float32(len(size) == 1)
        for _, theirs, size in tensor_names(shape)
    }


def tiny_importance(shape: LanguageConfig) -> Importance:
    """Return an importance matrix of the layers."""
    draw = np.random.default_rng(3)
    sums = {
        ours: draw.random(size[-1], dtype=np.float32) + np.float32(0.01)
        for ours, _, size in tensor_names(shape)
        if len(size) > 1 and ours.startswith("blk")
    }
    return Importance(sums=sums, counts=dict.fromkeys(sums, 1.0), dataset="drawn", chunks=1, file="drawn.gguf")


def summary(file: Path) -> dict[str, object]:
    """Return how often each type occurs, the bytes of all tensors, and one hash of every name, type, shape and byte."""
    kinds: dict[str, int] = {}
    whole, num_bytes = hashlib.sha256(), 0
    for tensor in sorted(gguf.GGUFReader(file).tensors, key=lambda tensor: tensor.name):
        kind = tensor.tensor_type.name
        kinds[kind] = kinds.get(kind, 0) + 1
        num_bytes += tensor.n_bytes
        whole.update(f"{tensor.name} {kind} {tensor.shape.tolist()}".encode() + tensor.data.tobytes())
    return {"kinds": dict(sorted(kinds.items())), "bytes": int(num_bytes), "sha256": whole.hexdigest()}
