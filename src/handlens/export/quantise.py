"""Write a language GGUF file anew with fewer bits, row by row.

Boundary: a GGUF file in, a GGUF file out, its keys kept. Weights of torch folders take the same way from ``plan`` on:
``gguf.py`` names and orders them, ``mixes.py`` chooses types, ``stream.py`` rounds and writes.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from handlens.engine.gguf_header import Header, TensorFact, read_header
from handlens.engine.llama import GGML_TYPES, ROW_BLOCKS, dequantise_rows
from handlens.errors import ModelError, SettingError
from handlens.export.gguf import ARCHITECTURES
from handlens.export.importance import Importance
from handlens.export.mixes import Stack, check_quant, choose_kind, is_largest_llama
from handlens.export.stream import Planned, Progress, write_planned

KINDS = {number: name for name, number in GGML_TYPES.items()}
"""Number of ``enum ggml_type`` -> name."""
WRITTEN_ANEW = ("general.architecture", "general.file_type", "general.quantization_version")
"""Keys that are set anew."""


@dataclass(frozen=True)
class FileRows:
    """One tensor of a GGUF file, read row by row; the file is mapped for these rows only."""

    file: Path
    fact: TensorFact
    as_stored: bool = False
    """Give the bytes and not the numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole, as numpy has it."""
        return self.fact.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return some rows as float32, or as their bytes."""
        count, fact = self.shape[0], self.fact
        begin, end, _ = rows.indices(count)
        row_bytes = fact.num_bytes // count
        offset = fact.offset + begin * row_bytes
        data = np.memmap(self.file, np.uint8, "r", offset, (end - begin, row_bytes)) if end > begin else np.empty(0)
        if self.as_stored:
            return data
        return dequantise_rows(data, fact.kind, fact.num_values // count).reshape(-1, *self.shape[1:])


def quantise_gguf(
    source: Path,
    out: Path,
    *,
    quant: str,
    importance: Importance | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write ``out`` whole or not at all; keys travel, and tensors that already have their type as they are.

    Args:
        source: a language GGUF in F32, F16 or BF16.
        out: the file to write.
        quant: one of ``MIXES``.
        importance: how much an error of each input of a matrix counts; None weighs all alike.
        again: also take a source of few bits, whose errors are then added to.
        progress: told how far it is.

    Raises:
        SettingError: unknown ``quant``, or the source has few bits and ``again`` is not set.
        ModelError: the source is damaged or no language model of a known kind, or ``out`` cannot be written.
    """
    check_quant(quant)
    header = read_header(source)
    _check(source, header, again=again)
    if out.exists() and out.samefile(source):
        raise SettingError(f"{out} is the file that is read; give another name")
    mix = check_quant(quant)

    def add_keys(writer: gguf.GGUFWriter) -> None:
        writer.add_file_type(mix.number)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        copy_keys(source, writer, but=WRITTEN_ANEW)
        if importance:
            importance.add_keys(writer)

    return write_planned(out, header.architecture, add_keys, plan(source, header, quant, importance), progress)


def copy_keys(source: Path, writer: gguf.GGUFWriter, *, but: Sequence[str] = ("general.architecture",)) -> None:
    """Write every key of a file; the writer has the architecture already."""
    for name, entry in gguf.GGUFReader(source).fields.items():
        if not name.startswith("GGUF.") and name not in but:
            is_list = entry.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(name, entry.contents(), entry.types[0], sub_type=entry.types[-1] if is_list else None)


def plan(source: Path, header: Header, quant: str, importance: Importance | None = None) -> list[Planned]:
    """Return every tensor of a file in its order, with the type that it gets."""
    mix, num_layers = check_quant(quant), header.number("block_count")
    heads = header.number("attention.head_count")
    stack = Stack(
        num_layers=num_layers,
        is_tied="output.weight" not in header.tensors,
        is_largest_llama=is_largest_llama(
            header.architecture, num_layers, heads, header.number("attention.head_count_kv", heads)
        ),
        is_weighted=importance is not None,
    )
    planned = []
    for name, fact in header.tensors.items():
        is_matrix = len(fact.shape) > 1 and name.endswith("weight") and "_norm.weight" not in name
        kind = choose_kind(name, fact.shape, mix, stack) if is_matrix else KINDS[fact.kind]
        rows = FileRows(source, fact, as_stored=kind == KINDS[fact.kind])
        weights = importance.of(name, fact.shape) if importance and is_matrix else None
        planned.append(Planned(name, fact.shape, kind, functools.partial(lambda rows: rows, rows), weights))
    return planned


def _check(source: Path, header: Header, *, again: bool) -> None:
    """Raise unless this is a language model of a known kind with enough bits."""
    if header.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{source} is a GGUF of kind '{header.architecture}'; language models of these kinds are quantised here: "
            f"{', '.join(ARCHITECTURES)}"
        )
    strange = {fact.kind for fact in header.tensors.values()} - set(KINDS)
    if strange:
        raise ModelError(f"{source} has tensors of type number {min(strange)}, which is not read here; start from F16")
    few = Counter(KINDS[fact.kind] for fact in header.tensors.values() if KINDS[fact.kind] in ROW_BLOCKS)
    if few and not again:
        raise SettingError(
            f"{source} is stored in {few.most_common(1)[0][0]} already, and rounding twice adds errors; start from a "
            "file in F16, BF16 or F32, or give --requantise"
        )


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a language file is made of."""

    num_bytes: int
    bits_per_weight: float
    """Of the weights alone, keys and vocabulary aside."""
    kinds: dict[str, int]
    """Type -> tensors."""
    fallbacks: dict[str, str]
    """Matrix -> type that it got because its rows do not fill blocks of 256."""


def describe(file: Path) -> Stored:
    """Return types and size of a language GGUF file; ``fallbacks`` are named where K types are beside others.

    Raises:
        ModelError: no GGUF file, or it is cut.
    """
    header = read_header(file)
    kinds = Counter(KINDS.get(fact.kind, str(fact.kind)) for fact in header.tensors.values())
    weights = sum(fact.num_values for fact in header.tensors.values())
    has_k = any(kind.endswith("_K") for kind in kinds)
    fallbacks = {
        name: KINDS[fact.kind]
        for name, fact in header.tensors.items()
        if has_k and fact.shape[-1] % 256 and KINDS.get(fact.kind) in ROW_BLOCKS
    }
    bits = 8 * sum(fact.num_bytes for fact in header.tensors.values()) / max(weights, 1)
    return Stored(num_bytes=file.stat().st_size, bits_per_weight=round(bits, 3), kinds=dict(kinds), fallbacks=fallbacks)
