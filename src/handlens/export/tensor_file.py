"""Read and write safetensors files one tensor at a time.

Boundary: numpy only, so that a device without torch can read a recorded reference and a whole checkpoint is never in
memory. A pickle is refused by its first bytes.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handlens.errors import ModelError

KINDS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip
"""Types of the format -> how numpy stores one number; BF16 comes as its 16 bits."""
MOST_HEADER_BYTES = 100_000_000
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x05")
"""How files of ``torch.save`` and ``pickle`` begin."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies."""

    file: Path
    kind: str
    """One of ``KINDS``."""
    shape: tuple[int, ...]
    begin: int
    """Bytes from the start of the file."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(KINDS[self.kind]).itemsize

    def stored(self) -> np.ndarray:
        """Return the values as they are in the file; the file is mapped, not read."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, dtype=KINDS[self.kind])
        return np.memmap(self.file, dtype=KINDS[self.kind], mode="r", offset=self.begin, shape=self.shape)

    def widened(self) -> np.ndarray:
        """Return floating values as float32, without loss for the half types."""
        return self[:]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return some rows as ``widened`` does; only these are read."""
        values = self.stored()[rows]
        if self.kind == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


class TensorFolder(Mapping[str, np.ndarray]):
    """The weights of a model folder by official name, widened to float32 when they are asked for."""

    def __init__(self, tensors: Mapping[str, StoredTensor], folder: Path) -> None:
        self.tensors, self.folder = dict(tensors), folder

    @classmethod
    def open(cls, folder: Path) -> "TensorFolder":
        """Read the headers of ``model.safetensors`` or of the shards that ``model.safetensors.index.json`` names.

        Raises:
            ModelError: no such file, a pickle in its place, or a file that is damaged or cut.
        """
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").is_file():
            names = ["model.safetensors"]
        elif index.is_file():
            names = _shards(index)
        else:
            pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
            what = f"only {pickles[0]}, a pickle, which can run code" if pickles else "no model.safetensors"
            raise ModelError(
                f"{folder} has {what}; safetensors files are needed; take them from an official checkpoint"
            )
        tensors: dict[str, StoredTensor] = {}
        for name in names:
            tensors |= read_header(folder / name)
        return cls(tensors, folder)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.place(name).widened()

    def place(self, name: str) -> StoredTensor:
        """Return where a tensor lies.

        Raises:
            ModelError: the folder lacks it.
        """
        if name not in self.tensors:
            raise ModelError(f"{self.folder} lacks the tensor {name}; it belongs to another model than its config.json")
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class StoredRows(Mapping[str, StoredTensor]):
    """Tensors of a folder that are read row by row, under their names inside one part of the model."""

    def __init__(self, weights: TensorFolder, prefix: str) -> None:
        self.weights, self.prefix = weights, prefix

    def __getitem__(self, name: str) -> StoredTensor:
        return self.weights.place(self.prefix + name)

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self.prefix) for name in self.weights if name.startswith(self.prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as cause:
        raise ModelError(f"{index} is damaged ({type(cause).__name__}); copy it again") from None
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{index} names '{name}', which is no file of its folder; do not trust this checkpoint")
        if not (index.parent / name).is_file():
            raise ModelError(f"{index.parent} lacks {name}, which its index names; download it again")
    return names


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return the place of every tensor; the values are not read.

    Raises:
        ModelError: the file is missing, a pickle, damaged, or shorter or longer than its tensors.
    """
    try:
        with file.open("rb") as stream:
            first = stream.read(8)
            length = int.from_bytes(first, "little")
            size = file.stat().st_size
            if first[:4] in PICKLES or first[:2] in PICKLES:
                raise ModelError(f"{file} is a pickle, which can run code; a safetensors file is needed")
            if len(first) < 8 or not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
                raise ModelError(f"{file} ({size:,} bytes) is no whole safetensors file; copy it again")
            fields = json.loads(stream.read(length))
        fields.pop("__metadata__", None)
        tensors = {name: _place(file, 8 + length, facts) for name, facts in fields.items()}
    except OSError as cause:
        raise ModelError(f"cannot read {file}: {cause.strerror or cause}; give a whole model folder") from None
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ModelError(f"{file} is damaged ({type(cause).__name__}: {cause}); copy it again") from None
    needed = max((place.begin + place.num_bytes for place in tensors.values()), default=8 + length)
    if needed != size:
        raise ModelError(f"{file} has {size:,} bytes, its tensors need {needed:,}; it is cut or damaged; copy it again")
    return tensors


def _place(file: Path, base: int, facts: Mapping[str, Any]) -> StoredTensor:
    begin, end = facts["data_offsets"]
    place = StoredTensor(
        file=file, kind=facts["dtype"], shape=tuple(int(length) for length in facts["shape"]), begin=base + begin
    )
    if end - begin != place.num_bytes or begin < 0 or min(place.shape, default=0) < 0:
        raise ValueError(f"a tensor of shape {list(place.shape)} in {end - begin} bytes")
    return place


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a file as it is stored.

    Raises:
        ModelError: see ``read_header``.
    """
    return {name: place.stored() for name, place in read_header(file).items()}


def write_tensors(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Write a safetensors file whole or not at all."""
    names = {np.dtype(code): kind for kind, code in KINDS.items() if kind != "BF16"}
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    fields, begin = {}, 0
    for name, values in arrays.items():
        kind = names[values.dtype.newbyteorder("<")]
        fields[name] = {
            "dtype": kind,
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, begin + values.nbytes],
        }
        begin += values.nbytes
    header = json.dumps(fields, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            for values in arrays.values():
                stream.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
