"""Write a GGUF file tensor by tensor: only one is in memory at a time.

Boundary: names, shapes and a function for the values in, a file out that appears whole or not at all.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from handlens.engine.llama import ROW_BLOCKS, quantise_rows
from handlens.errors import ModelError

FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes per value of the types without blocks."""


@dataclass(frozen=True)
class Planned:
    """One tensor to be written."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """``F32``, ``F16``, ``BF16`` or one of ``ROW_BLOCKS``."""
    values: Callable[[], np.ndarray]
    """Returns floats of ``shape``, or bytes that are already of ``kind``."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape as bytes for block types, as values for the others."""
        if self.kind not in ROW_BLOCKS:
            return self.shape
        block, size = ROW_BLOCKS[self.kind]
        return (*self.shape[:-1], self.shape[-1] // block * size)

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return int(np.prod(self.stored_shape, dtype=np.int64)) * FLOATS.get(self.kind, 1)


def write_planned(
    out: Path, architecture: str, add_keys: Callable[[gguf.GGUFWriter], None], tensors: Sequence[Planned]
) -> Path:
    """Write keys, then every tensor in its order.

    Raises:
        ModelError: the file cannot be written, or a tensor has another shape than the configuration says.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(unfinished, architecture)
    try:
        add_keys(writer)
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.kind]
            stored = np.dtype(np.uint8) if tensor.kind in ROW_BLOCKS else np.dtype(np.float32)
            writer.add_tensor_info(tensor.name, tensor.stored_shape, stored, tensor.num_bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(encode(tensor))
        writer.close()
        unfinished.replace(out)
    except OSError as cause:
        raise ModelError(
            f"cannot write {out}: {cause.strerror or cause}; free some space or give another folder"
        ) from None
    finally:
        writer.close()
        unfinished.unlink(missing_ok=True)
    return out


def encode(tensor: Planned) -> np.ndarray:
    """Return the values of a tensor as its type stores them.

    Raises:
        ModelError: the shape is not the planned one.
    """
    values = tensor.values()
    if values.dtype == np.uint8:
        assert values.nbytes == tensor.num_bytes, f"{tensor.name}: {values.nbytes} bytes, {tensor.num_bytes} planned"
        return values
    if values.shape != tensor.shape:
        raise ModelError(
            f"{tensor.name} comes with shape {list(values.shape)}; config.json needs {list(tensor.shape)}; "
            "take both files from one model"
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    if tensor.kind in ROW_BLOCKS:
        return quantise_rows(values.reshape(-1, values.shape[-1]), tensor.kind)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[tensor.kind])
