"""Store the weights of an ONNX graph in fewer bytes; the engine widens them once, when it loads the graph.

Boundary: a way to write constants; the graphs themselves are ``onnx.py`` and ``onnx_language.py``. What is computed is
float32 whatever is stored, with operators that every ONNX engine has and folds away.
"""

from typing import Literal

import numpy as np
from onnx import TensorProto, helper

from handlens.engine.llama import quantise_rows
from handlens.export.onnx import GraphWriter

Storage = Literal["f16", "q8"]
"""``f16``: half precision, without loss for weights that were bfloat16 and are not tiny. ``q8``: matrices in the blocks
of llama.cpp's Q8_0, 32 numbers and one scale, so that both engines have the same weights; the rest in ``f16``."""
BLOCK = 32
MOST_HALF = 65_504.0
"""Largest number of half precision."""
SMALL = 1024
"""Fewer numbers than this are not worth a node."""


class PackedGraph(GraphWriter):
    """A graph writer that stores large weights as ``storage`` says."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage

    def constant(self, name: str, values: np.ndarray) -> str:
        """Store a weight once, in half precision where that is possible and worth a node."""
        if values.dtype != np.float32 or values.size < SMALL or np.abs(values).max() > MOST_HALF:
            return self.exact(name, values)
        if f"{name}.f16" not in self.constants:
            self.exact(f"{name}.f16", values.astype(np.float16))
            self._widen(f"{name}.f16", name)
        return name

    def linear(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """Multiply by the transposed weight and add the bias."""
        if self.storage == "f16":
            return super().linear(x, name, weight, bias)
        product = self.node("MatMul", x, self._blocks(f"{name}.weight", weight), to=f"{name}.product")
        return product if bias is None else self.node("Add", product, self.constant(f"{name}.bias", bias), to=name)

    def _blocks(self, name: str, weight: np.ndarray) -> str:
        """Store a matrix [outputs, inputs] in blocks; return the name of its transpose in float32."""
        outputs, inputs = weight.shape
        if inputs % BLOCK:
            return self.constant(name, np.ascontiguousarray(weight.T))
        numbers, scales = split_blocks(quantise_rows(np.ascontiguousarray(weight, dtype=np.float32), "Q8_0"))
        self.exact(f"{name}.numbers", numbers)
        self.exact(f"{name}.scales", scales)
        wide = self._widen(f"{name}.numbers", f"{name}.wide")
        scale = self._widen(f"{name}.scales", f"{name}.scale")
        scaled = self.node("Mul", wide, scale, to=f"{name}.scaled")
        shape = self.exact(f"shape.{outputs}.{inputs}", np.array([outputs, inputs], dtype=np.int64))
        joined = self.node("Reshape", scaled, shape, to=f"{name}.joined")
        return self.node("Transpose", joined, to=name, perm=(1, 0))

    def _widen(self, x: str, to: str) -> str:
        """Append a cast to float32."""
        self.nodes.append(helper.make_node("Cast", [x], [to], name=to, to=TensorProto.FLOAT))
        return to


def split_blocks(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 8-bit numbers [rows, blocks, 32] and the half-precision scales [rows, blocks, 1] of Q8_0 rows."""
    blocks = rows.reshape(len(rows), -1, BLOCK + 2)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)
    return np.ascontiguousarray(blocks[:, :, 2:]).view(np.int8), scales
