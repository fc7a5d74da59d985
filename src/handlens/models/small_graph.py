"""A graph writer that stores matrices in 8 bits as it goes, so that full precision never exists.

Boundary: matrices go to a data file beside the graph. The nodes are those that ONNX Runtime's dynamic quantisation
makes: unsigned weights, one scale per column.
"""

from pathlib import Path

import numpy as np
from onnx import StringStringEntryProto, TensorProto, helper

from handlens.export.onnx import GraphWriter

LARGE_BYTES = 1 << 20
PAGE_BYTES = 4096
"""A tensor begins at a page, so that it can be mapped."""


class SmallWriter(GraphWriter):
    """Writes every linear layer as an integer product."""

    def __init__(self, data_file: Path) -> None:
        super().__init__()
        self._rounded: set[str] = set()
        self._data_file = data_file
        data_file.unlink(missing_ok=True)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Store a weight once; a large one outside the graph."""
        if values.nbytes < LARGE_BYTES or name in self.constants:
            return super().constant(name, values)
        with self._data_file.open("ab") as stream:
            stream.write(b"\0" * (-stream.tell() % PAGE_BYTES))
            begin = stream.tell()
            stream.write(np.ascontiguousarray(values).data)
        place = {"location": self._data_file.name, "offset": str(begin), "length": str(values.nbytes)}
        self.constants[name] = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=TensorProto.EXTERNAL,
            external_data=[StringStringEntryProto(key=key, value=value) for key, value in place.items()],
        )
        return name

    def linear(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """Multiply by the transposed weight in 8 bits and add the bias."""
        low = np.minimum(weight.min(axis=1), 0)
        scale = np.maximum((np.maximum(weight.max(axis=1), 0) - low) / 255, 1e-12).astype(np.float32)
        zero = np.rint(-low / scale).astype(np.uint8)
        stored = np.empty(weight.shape[::-1], dtype=np.uint8)
        for row in range(0, len(weight), 256):
            part = slice(row, row + 256)
            stored[:, part] = np.clip(np.rint(weight[part] / scale[part, None]) + zero[part, None], 0, 255).T
        self._quantise(x)
        product = self.node(
            "MatMulInteger",
            f"{x}.rounded",
            self.constant(f"{name}.weight_quantized", stored),
            f"{x}.zero",
            self.constant(f"{name}.weight_zero_point", zero),
            to=f"{name}.integers",
        )
        self.nodes.append(helper.make_node("Cast", [product], [f"{name}.floats"], to=TensorProto.FLOAT))
        steps = self.node("Mul", f"{x}.step", self.constant(f"{name}.weight_scale", scale), to=f"{name}.steps")
        out = self.node("Mul", f"{name}.floats", steps, to=f"{name}.product")
        return out if bias is None else self.node("Add", out, self.constant(f"{name}.bias", bias), to=name)

    def _quantise(self, x: str) -> None:
        """Round an activation to 8 bits once, however many layers read it."""
        if x not in self._rounded:
            self._rounded.add(x)
            parts = [f"{x}.rounded", f"{x}.step", f"{x}.zero"]
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], parts))
