"""What a GGUF file says about itself: its keys and its tensors, without its weights.

Boundary: one file in, plain values out; text lists (vocabularies) are skipped, so that a file of 8B is read at once.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from handlens.errors import ModelError

MAGIC = b"GGUF"
ALIGNMENT = 32
TEXT, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Numbers of ``gguf_type`` -> how ``struct`` reads one."""
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 24: (1, 1),
    25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip
"""Numbers of ``enum ggml_type`` -> values per block and bytes per block."""


@dataclass(frozen=True, kw_only=True)
class TensorFact:
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    """As numpy has it: the longest stride first."""
    kind: int
    """Number of ``enum ggml_type``."""
    offset: int
    """From the beginning of the file."""
    num_bytes: int

    @property
    def num_values(self) -> int:
        """How many weights it has."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True, kw_only=True)
class Header:
    """Keys and tensors of one file."""

    values: dict[str, Any]
    """Every key but lists of text; a list of numbers is a tuple."""
    tensors: dict[str, TensorFact]

    @property
    def architecture(self) -> str:
        """For example ``llama`` or ``clip``."""
        return str(self.values.get("general.architecture", ""))

    def number(self, key: str, default: int = 0) -> int:
        """Return a number of this architecture, for example ``embedding_length``."""
        return int(self.values.get(f"{self.architecture}.{key}", default))


def read_header(file: Path) -> Header:
    """Return keys and tensors of a GGUF file.

    Raises:
        ModelError: the file is no GGUF, or it is cut.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(4) != MAGIC:
                raise ModelError(f"cannot load {file}: it is no GGUF file; export the bundle again")
            return _read(stream, file.stat().st_size)
    except OSError as cause:
        raise ModelError(f"cannot load {file}: {cause.strerror or cause}; export the bundle again") from None
    except (struct.error, KeyError, UnicodeDecodeError, IndexError, OverflowError, MemoryError, ValueError) as cause:
        reason = f"it is damaged ({type(cause).__name__}: {cause})"
        raise ModelError(f"cannot load {file}: {reason}; copy or export it again") from None


def _read(stream: BinaryIO, size: int) -> Header:
    _version, num_tensors, num_values = _take(stream, "IQQ")
    if num_tensors + num_values > size:
        raise ValueError(f"{num_tensors + num_values} entries in {size} bytes")
    values = {}
    for _ in range(num_values):
        key = _text(stream)
        (kind,) = _take(stream, "I")
        values[key] = _value(stream, kind)
    found = []
    for _ in range(num_tensors):
        name = _text(stream)
        (rank,) = _take(stream, "I")
        shape = _take(stream, "Q" * rank)
        kind, offset = _take(stream, "IQ")
        found.append((name, tuple(reversed(shape)), kind, offset))
    alignment = int(values.get("general.alignment", ALIGNMENT))
    begin = -(-stream.tell() // alignment) * alignment
    tensors = {
        name: TensorFact(name=name, shape=shape, kind=kind, offset=begin + offset, num_bytes=_bytes(shape, kind))
        for name, shape, kind, offset in found
    }
    end = max((fact.offset + fact.num_bytes for fact in tensors.values()), default=0)
    if end > size:
        raise ValueError(f"it has {size:,} bytes, its tensors need {end:,}")
    return Header(values=values, tensors=tensors)


def _bytes(shape: tuple[int, ...], kind: int) -> int:
    block, size = BLOCKS[kind]
    count = 1
    for length in shape:
        count *= length
    return count // block * size


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(stream)
    if kind != ARRAY:
        return _take(stream, SCALARS[kind])[0]
    inner, count = _take(stream, "IQ")
    if inner == TEXT:
        for _ in range(count):
            stream.seek(_take(stream, "Q")[0], 1)
        return None
    return _take(stream, SCALARS[inner] * count) if count < 1 << 24 else None


def _text(stream: BinaryIO) -> str:
    (length,) = _take(stream, "Q")
    if length > 1 << 26:
        raise ValueError(f"a text of {length} bytes")
    return stream.read(length).decode("utf-8")


def _take(stream: BinaryIO, form: str) -> tuple[Any, ...]:
    reader = struct.Struct("<" + form)
    return reader.unpack(stream.read(reader.size))
