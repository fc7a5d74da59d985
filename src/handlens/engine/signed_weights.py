"""Turn the unsigned 8-bit weights of a graph into signed ones: the same integers in another form.

Boundary: the bytes of an ONNX file in, bytes out; the package onnx is not needed. Processors with VNNI multiply
unsigned inputs by signed weights in one instruction; ONNX Runtime uses it for signed weights only. Elsewhere signed
weights saturate (``export/onnx.py``), so a file keeps unsigned ones. ``w - zero`` stays what it is when both lose 128,
so the visual tokens stay the same to the last bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handlens.engine.llama import processor_flags

NEEDED_FLAG = "avx512_vnni"
"""As Linux names it."""
# Fields of ``onnx.proto``: what is read here and nothing else.
GRAPH, NODE, INITIALIZER = 7, 1, 5
INPUT, KIND = 1, 4
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL = 1, 2, 8, 9, 13
KEY, VALUE = 1, 2
UINT8, INT8 = 2, 3
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
TOP_BIT = np.uint8(0x80)


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A graph whose integer products have signed weights."""

    graph: bytes
    beside: dict[str, np.ndarray]
    """Weights of the file beside the graph, by name."""


@dataclass(kw_only=True)
class _Tensor:
    """Where the parts of an initializer stand in the file."""

    type_at: int = -1
    dims: tuple[int, ...] = ()
    raw: tuple[int, int] | None = None
    place: dict[str, str] | None = None


def pays_here() -> bool:
    """Return whether this processor multiplies by signed weights faster."""
    return NEEDED_FLAG in (processor_flags() or ())


def read_signed(file: Path) -> Signed | None:
    """Return the graph with signed weights; None where there is nothing to change or it is stored in another way."""
    data = bytearray(file.read_bytes())
    names, tensors = _read(data)
    found = [tensors.get(name) for name in names]
    if not found or any(tensor is None or not (tensor.raw or tensor.place) for tensor in found):
        return None
    beside = {}
    values = np.frombuffer(data, dtype=np.uint8)
    for name in names:
        tensor = tensors[name]
        if data[tensor.type_at] != UINT8:
            return None
        values[tensor.type_at] = INT8
        if tensor.raw:
            values[slice(*tensor.raw)] ^= TOP_BIT
        else:
            beside[name] = _read_beside(file, tensor)
    return Signed(graph=bytes(data), beside=beside)


def _read(data: bytearray) -> tuple[list[str], dict[str, _Tensor]]:
    """Return the names of weights and zeros of integer products, and every initializer."""
    names: dict[str, None] = {}
    tensors = {}
    for graph_field, _, graph_begin, graph_end in _fields(data, 0, len(data)):
        if graph_field != GRAPH:
            continue
        for field, _, begin, end in _fields(data, graph_begin, graph_end):
            if field == NODE:
                names |= dict.fromkeys(_weights_of(data, begin, end))
            elif field == INITIALIZER:
                name, tensor = _tensor(data, begin, end)
                tensors[name] = tensor
    return list(names), tensors


def _weights_of(data: bytearray, begin: int, end: int) -> list[str]:
    inputs, kind = [], ""
    for field, _, start, stop in _fields(data, begin, end):
        if field == INPUT:
            inputs.append(data[start:stop].decode())
        elif field == KIND:
            kind = data[start:stop].decode()
    return [inputs[1], inputs[3]] if kind == "MatMulInteger" and len(inputs) == 4 else []


def _tensor(data: bytearray, begin: int, end: int) -> tuple[str, _Tensor]:
    name, tensor, dims = "", _Tensor(), []
    for field, wire, start, stop in _fields(data, begin, end):
        if field == NAME:
            name = data[start:stop].decode()
        elif field == DATA_TYPE:
            tensor.type_at = start
        elif field == RAW_DATA and stop > start:
            tensor.raw = (start, stop)
        elif field == DIMS:
            at = start
            while at < stop:
                value, at = _varint(data, at)
                dims.append(value)
            assert wire in (VARINT, BYTES), "dims are numbers"
        elif field == EXTERNAL:
            entry = {part: data[first:last].decode() for part, _, first, last in _fields(data, start, stop)}
            tensor.place = (tensor.place or {}) | {entry[KEY]: entry[VALUE]}
    tensor.dims = tuple(dims)
    return name, tensor


def _read_beside(file: Path, tensor: _Tensor) -> np.ndarray:
    assert tensor.place is not None
    stored = np.memmap(
        file.parent / tensor.place["location"], dtype=np.uint8, mode="r", offset=int(tensor.place.get("offset", 0)),
        shape=tensor.dims,
    )  # fmt: skip
    return (stored ^ TOP_BIT).view(np.int8)


def _fields(data: bytearray, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, begin and end of every field of a message."""
    at = begin
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        start = at
        if wire == VARINT:
            _, at = _varint(data, at)
        elif wire == BYTES:
            length, start = _varint(data, at)
            at = start + length
        else:
            at += {FIXED64: 8, FIXED32: 4}[wire]
        yield number, wire, start, at


def _varint(data: bytearray, at: int) -> tuple[int, int]:
    """Return a number and where the next begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
