"""Write a GGUF file piece by piece: only some rows of one tensor are in memory at a time.

Boundary: names, shapes and a function for the values in, a file out that appears whole or not at all.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import gguf
import numpy as np
from jaxtyping import Float32

from handlens.engine.llama import ROW_BLOCKS, quantise_rows
from handlens.errors import ModelError

FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes per value of the types without blocks."""
CHUNK_VALUES = 1 << 22
"""Values that are widened and rounded at once: 16 MiB in 32 bits."""

Progress = Callable[[int, int, str], object]
"""Told tensors done, tensors wanted and a name."""


@runtime_checkable
class Rows(Protocol):
    """An array, or something that gives its rows when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some rows."""
        ...


@dataclass(frozen=True)
class Planned:
    """One tensor to be written."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """``F32``, ``F16``, ``BF16`` or one of ``ROW_BLOCKS``."""
    values: Callable[[], Rows]
    """Returns floats of ``shape``, or bytes that are already of ``kind``."""
    importance: Float32[np.ndarray, "columns"] | None = None
    """How much an error of each column counts; None weighs all alike."""

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
    out: Path,
    architecture: str,
    add_keys: Callable[[gguf.GGUFWriter], None],
    tensors: Sequence[Planned],
    progress: Progress | None = None,
) -> Path:
    """Write keys, then every tensor in its order.

    Raises:
        ModelError: the file cannot be written, a tensor has another shape than the configuration says, or a value
            has no place in its type.
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
        assert writer.fout is not None
        stream = writer.fout[0]
        writer.write_padding(stream, stream.tell())
        for number, tensor in enumerate(tensors):
            for part in encode(tensor):
                part.tofile(stream)
            writer.write_padding(stream, tensor.num_bytes)
            if progress:
                progress(number + 1, len(tensors), tensor.name)
        writer.close()
        unfinished.replace(out)
    except OSError as cause:
        raise ModelError(
            f"cannot write {out}: {cause.strerror or cause}; free some space or give another folder"
        ) from None
    finally:
        for left_open in writer.fout or ():
            left_open.close()
        unfinished.unlink(missing_ok=True)
    return out


def encode(tensor: Planned) -> Iterator[np.ndarray]:
    """Yield the values of a tensor as its type stores them, some rows at a time.

    Raises:
        ModelError: the shape is not the planned one, or a value is not a number or too large for the type.
    """
    values = tensor.values()
    step = max(1, CHUNK_VALUES // int(np.prod(tensor.shape[1:], dtype=np.int64)))
    written = 0
    for begin in range(0, max(values.shape[0], 1), step):
        part = values[begin : begin + step]
        if part.dtype != np.uint8:
            if values.shape != tensor.shape:
                raise ModelError(
                    f"{tensor.name} comes with shape {list(values.shape)}; config.json needs {list(tensor.shape)}; "
                    "take both files from one model"
                )
            part = _rounded(np.ascontiguousarray(part, dtype=np.float32), tensor)
        written += part.nbytes
        yield part
    assert written == tensor.num_bytes, f"{tensor.name}: {written} bytes, {tensor.num_bytes} planned"


def _rounded(values: np.ndarray, tensor: Planned) -> np.ndarray:
    """Return floats in the type of the tensor."""
    if tensor.kind == "F32":
        return values
    if not np.isfinite(values).all():
        raise ModelError(f"{tensor.name} holds values that are not numbers; this checkpoint is broken, take another")
    if tensor.kind in ROW_BLOCKS:
        return quantise_rows(values.reshape(-1, values.shape[-1]), tensor.kind, tensor.importance)
    if tensor.kind == "F16" and (largest := float(np.abs(values).max(initial=0.0))) >= 65520:
        raise ModelError(f"{tensor.name} holds {largest:.6g}, beyond the 65504 of F16; take --quant BF16")
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[tensor.kind])
