"""Safetensors files of a model folder: one file or shards, headers first, tensors when asked for.

Boundary: never opens a pickle; a file that was cut is refused before any tensor is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from handlens.errors import ModelError
from handlens.export.tensor_file import read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Endings of files that can run code when they are opened."""
NUMBER_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class StoredWeights:
    """What the headers say; ``files`` tells in which file each tensor lies."""

    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    folder: Path

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor as it is stored."""
        with safe_open(str(self.files[name]), framework="pt") as file:
            return file.get_tensor(name)


def open_weights(place: Path) -> StoredWeights:
    """Read the headers of a model folder, or of one safetensors file.

    Raises:
        ModelError: no weights, a pickle, a damaged or missing file, or a tensor that lies in two files.
    """
    place = Path(place)
    files = _weight_files(place) if place.is_dir() else [_not_a_pickle(place)]
    found: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, torch.dtype] = {}
    for path in files:
        read_header(path)  # says what is wrong with a file that is missing, cut or a pickle under another name
        try:
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if name in found:
                        raise ModelError(
                            f"{path} and {found[name]} both hold the tensor {name}; download the folder again"
                        )
                    part = file.get_slice(name)
                    found[name], shapes[name] = path, tuple(part.get_shape())
                    dtypes[name] = _number_type(part.get_dtype(), name, path)
        except (OSError, SafetensorError) as cause:
            raise ModelError(f"cannot read {path}: {cause}; copy it again or re-train") from None
    return StoredWeights(found, shapes, dtypes, place if place.is_dir() else place.parent)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).exists() or not (folder / INDEX).is_file():
        _refuse_pickles(folder)
        return [folder / WEIGHTS]
    try:
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ModelError(
            f"{folder / INDEX} is damaged ({type(cause).__name__}: {cause}); download the folder again"
        ) from None
    if inside_out := [name for name in names if Path(name).name != name]:
        raise ModelError(f"{folder / INDEX} points to {inside_out[0]!r}, outside its folder; download the folder again")
    return [folder / name for name in names]


def _refuse_pickles(folder: Path) -> None:
    """Say what is wrong where only a pickle is there."""
    if not (folder / WEIGHTS).exists():
        for file in sorted(folder.iterdir()):
            _not_a_pickle(file)


def _not_a_pickle(file: Path) -> Path:
    if file.suffix in PICKLES:
        raise ModelError(
            f"{file} is a pickle, which can run any code when it is opened; handlens reads safetensors only; "
            "take the safetensors form of this model or convert it where you trust the file"
        )
    return file


def _number_type(name: str, tensor: str, file: Path) -> torch.dtype:
    if name not in NUMBER_TYPES:
        raise ModelError(f"{file}: {tensor} holds numbers of type {name}; known: {', '.join(NUMBER_TYPES)}")
    return NUMBER_TYPES[name]
