"""The importance matrix: how much an error of each column of a weight matrix counts.

Boundary: the GGUF file of llama.cpp's own tool, read and written. A column that multiplies large inputs counts more;
the file holds the sum of the squares of every input and how many tokens were added up. ``observe.py`` makes one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from jaxtyping import Float32

from handlens.engine.gguf_header import read_header
from handlens.errors import ModelError

SUMS, COUNTS = ".in_sum2", ".counts"
"""Endings of the two tensors that the file has for each matrix."""
EMBEDDINGS = "token_embd.weight"
"""Its rows are looked up; llama.cpp's tool may write something else under this name, which llama.cpp ignores too."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Sums of squared inputs by the name of the matrix that they meet."""

    sums: Mapping[str, Float32[np.ndarray, "columns"]]
    counts: Mapping[str, float]
    """Tokens that were added up."""
    dataset: str = ""
    """What was read while it was measured."""
    chunks: int = 0
    """Prompts that were read."""
    file: str = ""
    """Name of the file it came from."""

    def of(self, name: str, shape: tuple[int, ...]) -> Float32[np.ndarray, "columns"] | None:
        """Return the mean square of each input of a matrix; None where nothing is known of it.

        Raises:
            ModelError: the matrix was measured on a model of another width.
        """
        if name not in self.sums or len(shape) < 2:
            return None
        found = self.sums[name]
        if found.shape != shape[-1:] and name == EMBEDDINGS:
            return None
        if found.shape != shape[-1:]:
            raise ModelError(
                f"the importance of {name} has {len(found)} columns, the matrix has {shape[-1]}; the importance matrix "
                "was measured on another model; measure one on this model"
            )
        count = self.counts[name]
        return found / np.float32(count) if count > 0 else np.ones_like(found)

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """Say in a language file what it was weighted with."""
        writer.add_string("quantize.imatrix.file", self.file)
        if self.dataset:
            writer.add_string("quantize.imatrix.dataset", self.dataset)
        writer.add_uint32("quantize.imatrix.entries_count", len(self.sums))
        if self.chunks:
            writer.add_uint32("quantize.imatrix.chunks_count", self.chunks)


def read_importance(file: Path) -> Importance:
    """Read the file that ``llama-imatrix`` or ``write_importance`` wrote.

    Raises:
        ModelError: no GGUF file, the older format of llama.cpp, a model, or values that are not numbers.
    """
    header = read_header(file)
    names = [name.removesuffix(SUMS) for name in header.tensors if name.endswith(SUMS)]
    if not names or any(name + COUNTS not in header.tensors for name in names):
        raise ModelError(
            f"{file} holds no importance matrix (tensors that end in '{SUMS}' and '{COUNTS}'); make one with "
            "`handlens export MODEL --measure-importance FILE` or llama-imatrix"
        )
    if any(header.tensors[name + end].kind != 0 for name in names for end in (SUMS, COUNTS)):
        raise ModelError(f"{file} holds an importance matrix that is not in 32 bits; make it again")

    def values(name: str) -> np.ndarray:
        fact = header.tensors[name]
        return np.fromfile(file, dtype="<f4", count=fact.num_values, offset=fact.offset)

    sums = {name: values(name + SUMS) for name in names}
    counts = {name: values(name + COUNTS) for name in names}
    for name in names:
        if counts[name].shape != (1,):
            raise ModelError(f"{file} is of a model with experts ({name}); such models are not exported here")
        if not (np.isfinite(sums[name]).all() and np.isfinite(counts[name]).all()):
            raise ModelError(f"{file}: the importance of {name} holds values that are not numbers; make it again")
    fields = gguf.GGUFReader(file).fields
    datasets = fields["imatrix.datasets"].contents() if "imatrix.datasets" in fields else []
    return Importance(
        sums=sums,
        counts={name: float(count[0]) for name, count in counts.items()},
        dataset=str(datasets[0]) if datasets else "",
        chunks=int(header.values.get("imatrix.chunk_count", 0)),
        file=file.name,
    )


def write_importance(importance: Importance, file: Path, *, chunk_tokens: int) -> Path:
    """Write the file that ``llama-quantize --imatrix`` reads, whole or not at all; ``chunk_tokens`` is noted in it."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(unfinished, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [importance.dataset])
    writer.add_uint32("imatrix.chunk_count", importance.chunks)
    writer.add_uint32("imatrix.chunk_size", chunk_tokens)
    for name, values in sorted(importance.sums.items()):
        writer.add_tensor(name + SUMS, values.astype(np.float32)[None])
        writer.add_tensor(name + COUNTS, np.array([[importance.counts[name]]], dtype=np.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        unfinished.replace(file)
    except OSError as cause:
        raise ModelError(f"cannot write {file}: {cause.strerror or cause}; give another place") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return file
