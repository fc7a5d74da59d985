"""Make a model of random weights at the true size of a released version, already quantised.

Boundary: sizes in, a bundle out. Full-precision weights never exist: blocks are drawn from a small pool that was
quantised from normal numbers, so that scales are those of real weights and nothing overflows. Memory and speed can be
measured on it; its answers mean nothing.
"""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np

from handlens.config import HandlensConfig
from handlens.engine.bundle import MMPROJ
from handlens.engine.llama import ROW_BLOCKS, quantise_rows
from handlens.errors import ModelError, NeedsExtra
from handlens.export.bundle import VISIONS, _replace, begin_folder, write_manifest
from handlens.export.gguf import QUANTS, add_shape, check_kind, plan_tensors
from handlens.export.mixes import check_quant
from handlens.export.mmproj import VERSIONS, write_mmproj
from handlens.export.stream import Planned, Rows, write_planned
from handlens.export.vocabulary import add_vocabulary, read_vocabulary
from handlens.families import Family, family_named
from handlens.models.vocabulary import write_random_vocabulary

POOL_BLOCKS = 4096
"""Blocks that are quantised for one type; every tensor draws from them."""
CHUNK_BYTES = 1 << 24
"""Drawn and written at once."""

Progress = Callable[[int, int, str], None]


def make_random(
    config: HandlensConfig,
    out: Path,
    *,
    quant: str = "Q4_K_M",
    vision: str = "int8",
    mmproj: bool = False,
    seed: int = 0,
    name: str = "random",
    progress: Progress | None = None,
) -> Path:
    """Write a bundle of random weights; it appears whole or not at all.

    Args:
        config: the size, for example from ``released_config``.
        out: the folder.
        quant: type of the language weights, one of ``export.gguf.QUANTS``.
        vision: ``int8`` or ``fp32``.
        mmproj: also write the vision part for llama.cpp, in F16.
        seed: of the draw.
        name: in the manifest.
        progress: told done and wanted tensors and what is written.

    Raises:
        SettingError: unknown ``quant``.
        ModelError: this kind of language model is not written, or ``out`` exists.
        NeedsExtra: the package onnx is missing.
    """
    check_quant(quant)
    check_kind(config.language)
    config = HandlensConfig.from_official(config.to_official())  # as a reader of the manifest will see it
    if out.exists():
        raise ModelError(f"{out} exists; remove it first, or give another name")
    family = family_named(config.family)
    unfinished = begin_folder(out)
    try:
        tokenizer = write_random_vocabulary(unfinished / "tokenizer.json", config.language.vocab_size, family)
        _write_language(config, tokenizer, unfinished / f"language-{quant}.gguf", quant, seed, name, progress)
        _write_vision(config, unfinished, vision, seed)
        if mmproj:
            _write_mmproj(config, family, unfinished / MMPROJ, seed)
        write_manifest(unfinished, config, name=name, licence="CC0-1.0", ledger={"notice": NOTICE})
        _replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


NOTICE = "random weights of the true size, for measuring only; its answers mean nothing"


class BlockPool:
    """Draws tensors of quantised blocks."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pools: dict[str, np.ndarray] = {}

    def tensor(self, planned: Planned) -> np.ndarray:
        """Return bytes or values for a tensor, drawn in pieces from a pool of its type."""
        shape, kind = planned.shape, planned.kind
        if len(shape) == 1:
            return np.full(shape, 1.0 if planned.name.endswith("norm.weight") else 0.0, dtype=np.float32)
        scale = shape[-1] ** -0.5
        if kind not in ROW_BLOCKS:
            values = self._rng.standard_normal(1 << 16, dtype=np.float32) * np.float32(scale)
            return values[self._rng.integers(0, len(values), shape, dtype=np.uint16)]
        _, size = ROW_BLOCKS[kind]
        pool = self._pool(kind, scale)
        out = np.empty(planned.num_bytes // size, dtype=f"V{size}")
        step = CHUNK_BYTES // size
        for start in range(0, len(out), step):
            part = out[start : start + step]
            np.take(pool, self._rng.integers(0, POOL_BLOCKS, len(part), dtype=np.uint16), out=part)
        return out.view(np.uint8).reshape(planned.stored_shape)

    def _pool(self, kind: str, scale: float) -> np.ndarray:
        """Return blocks quantised from normal numbers of a deviation; the scales inside them are sane by that."""
        key = f"{kind} {scale}"
        if key not in self._pools:
            block, size = ROW_BLOCKS[kind]
            values = self._rng.standard_normal((POOL_BLOCKS, block), dtype=np.float32) * np.float32(scale)
            self._pools[key] = quantise_rows(values, kind).reshape(-1).view(f"V{size}")
        return self._pools[key]


def _write_language(
    config: HandlensConfig, tokenizer: Path, out: Path, quant: str, seed: int, name: str, progress: Progress | None
) -> None:
    vocabulary = read_vocabulary(tokenizer)
    pool = BlockPool(seed)
    known = plan_tensors(Nothing(), config.language, quant)
    of = len(known)

    def draw(number: int, tensor: Planned) -> Rows:
        if progress:
            progress(number + 1, of, tensor.name)
        return tensor.values() if tensor.name.startswith("rope_factors") else pool.tensor(tensor)

    planned = [
        Planned(tensor.name, tensor.shape, tensor.kind, functools.partial(draw, number, tensor))
        for number, tensor in enumerate(known)
    ]

    def add_keys(writer: gguf.GGUFWriter) -> None:
        add_shape(writer, config.language, QUANTS[quant], name)
        add_vocabulary(writer, vocabulary)

    write_planned(out, config.language.kind, add_keys, planned)


class Nothing(Mapping[str, np.ndarray]):
    """Weights that are never asked for."""

    def __getitem__(self, name: str) -> np.ndarray:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class RandomVision(Nothing):
    """Weights of tower and resampler under the names of 2.5 and later, drawn when they are asked for."""

    def __init__(self, config: HandlensConfig, seed: int) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        self.pool = self.rng.standard_normal(1 << 16, dtype=np.float32)

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self._shape(name)
        if len(shape) == 1:
            return np.full(shape, 1.0 if "norm" in name or "ln_" in name else 0.0, dtype=np.float32) * (
                0.0 if name.endswith("bias") else 1.0
            )
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        return (self.pool * scale)[self.rng.integers(0, len(self.pool), shape, dtype=np.uint16)]

    def _shape(self, name: str) -> tuple[int, ...]:
        vision, resampler = self.config.vision, self.config.resampler
        width, mlp, dim = vision.width, vision.mlp_width, resampler.width
        last = ".".join(name.split(".")[-2:])
        matrices = {
            "patch_embedding.weight": (width, 3, vision.patch_px, vision.patch_px),
            # 1.0 and 2.0 resize a table of 27x27 to the slice; here it is as large as the largest slice.
            "position_embedding.weight": (4900, width),
            "fc1.weight": (mlp, width), "fc1.bias": (mlp,), "fc2.weight": (width, mlp),
            "resampler.query": (resampler.num_queries, dim), "resampler.proj": (dim, dim),
            "resampler.pos_embed": (resampler.num_queries, dim),
            "attn.in_proj_weight": (3 * dim, dim), "attn.in_proj_bias": (3 * dim,), "kv_proj.weight": (dim, width),
        }  # fmt: skip
        if last in matrices:
            return matrices[last]
        side = dim if name.startswith("resampler") else width
        return (side, side) if name.endswith(("proj.weight",)) else (side,)


def _write_vision(config: HandlensConfig, folder: Path, kind: str, seed: int) -> None:
    try:
        from handlens.export.onnx import write_vision
        from handlens.models.small_graph import SmallWriter
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"models make ({cause.name} is missing)", "train") from None
    writer = SmallWriter(folder / f"{VISIONS[kind]}.data") if kind == "int8" else None
    write_vision(RandomVision(config, seed), config, folder / VISIONS[kind], graph=writer)


def _write_mmproj(config: HandlensConfig, family: Family, out: Path, seed: int) -> None:
    if family.name not in VERSIONS:
        raise ModelError(f"llama.cpp has no vision part for family {family.name}; leave out --mmproj")
    write_mmproj(RandomVision(config, seed), config, out, kind="F16")


def read_sizes(folder: Path) -> dict[str, int]:
    """Return the files of a bundle with their bytes."""
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return {name: int(facts["bytes"]) for name, facts in files.items()}
