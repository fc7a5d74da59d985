"""Which matrices lose most in fewer bits: the error of weights, and of logits when only one group is rounded.

Boundary: language files and probes in, numbers out. A probe is a prompt with the answer of full precision, so both
files are asked for the same next tokens.
"""

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from handlens.core.prompt import Prompt
from handlens.core.sampling import log_softmax
from handlens.engine.gguf_header import Header, read_header
from handlens.engine.language import LlamaCppLanguage
from handlens.engine.room import Room
from handlens.engine.setup import Setup
from handlens.export.importance import Importance
from handlens.export.mixes import MIXES
from handlens.export.quantise import KINDS, FileRows, copy_keys, quantise_gguf
from handlens.export.stream import Planned, write_planned

GROUPS = {
    "embeddings": ("token_embd",),
    "attention, queries and keys": ("attn_q", "attn_k"),
    "attention, values": ("attn_v",),
    "attention, output": ("attn_output",),
    "MLP, gate and up": ("ffn_gate", "ffn_up"),
    "MLP, down": ("ffn_down",),
    "output": ("output",),
}
"""Name in the report -> matrices of llama.cpp."""
MOST_JUDGED_BYTES = 2_000_000_000
"""For larger files one copy for each group would take too long; the error of their weights is told alone."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A question, and the way that full precision answers it."""

    prompt: Prompt
    ids: tuple[int, ...]
    visual: Float32[np.ndarray, "visual dim"]
    visual_given: Float32[np.ndarray, "visual dim"]
    """Visual tokens of the vision half in fewer bits."""


@dataclass(frozen=True, kw_only=True)
class GroupLoss:
    """What rounding one group alone costs."""

    group: str
    kinds: dict[str, int]
    """Type -> matrices."""
    num_bytes: int
    weight_error: float
    """Root mean square of the rounding over that of the weights; of visual tokens for the vision half."""
    divergence: float | None
    """Mean Kullback-Leibler divergence of the next token, nats; None where the file is too large."""
    same_choice: float | None
    """Share of places where the likeliest token stays."""


@dataclass(frozen=True, kw_only=True)
class MixLoss:
    """What storing the whole language half in one mix costs."""

    quant: str
    num_bytes: int
    divergence: float
    same_choice: float


def judge_groups(full: Path, given: Path, probes: Sequence[Probe], *, with_vision: bool) -> tuple[GroupLoss, ...]:
    """Return the loss of every group that differs, and of the vision half where it was rounded too."""
    headers = read_header(full), read_header(given)
    is_judged = full.stat().st_size <= MOST_JUDGED_BYTES and bool(probes)
    reference = logits_along(full, probes) if is_judged else []
    found = []
    for group, parts in GROUPS.items():
        names = [name for name in headers[0].tensors if _part(name) in parts and name in headers[1].tensors]
        changed = [name for name in names if headers[0].tensors[name].kind != headers[1].tensors[name].kind]
        if not changed:
            continue
        error = _weight_error(full, given, headers, changed)
        told: tuple[float, float] | tuple[None, None] = (None, None)
        if is_judged:
            with tempfile.TemporaryDirectory(prefix="handlens-group-") as folder:
                mixed = _with_group(full, given, headers, set(changed), Path(folder) / "one-group.gguf")
                told = loss(reference, logits_along(mixed, probes))
        found.append(_loss(group, headers[1], changed, error, told))
    if with_vision and probes:
        gap = np.concatenate([probe.visual_given - probe.visual for probe in probes if len(probe.visual)])
        power = np.concatenate([probe.visual for probe in probes if len(probe.visual)])
        told = loss(reference, logits_along(full, probes, given_eyes=True)) if is_judged else (None, None)
        error = float(np.sqrt(np.square(gap).mean() / np.square(power).mean()))
        found.append(GroupLoss(group="vision half", kinds={}, num_bytes=0, weight_error=error, divergence=told[0],
                               same_choice=told[1]))  # fmt: skip
    return tuple(found)


def judge_mixes(full: Path, probes: Sequence[Probe], importance: Importance | None) -> tuple[MixLoss, ...]:
    """Return size and loss of every mix of few bits; nothing for files that are too large."""
    if full.stat().st_size > MOST_JUDGED_BYTES or not probes:
        return ()
    reference, found = logits_along(full, probes), []
    for quant, mix in MIXES.items():
        if mix.has_blocks:
            with tempfile.TemporaryDirectory(prefix="handlens-mix-") as folder:
                file = Path(folder) / "mix.gguf"
                quantise_gguf(full, file, quant=quant, importance=importance, again=True)
                divergence, same = loss(reference, logits_along(file, probes))
                found.append(
                    MixLoss(quant=quant, num_bytes=file.stat().st_size, divergence=divergence, same_choice=same)
                )
    return tuple(found)


def logits_along(file: Path, probes: Sequence[Probe], *, given_eyes: bool = False) -> list[np.ndarray]:
    """Return the logits before every token of every probe's answer, and after its last."""
    room = Room(prompt=max(len(probe.prompt.ids) for probe in probes), answer=1 + max(len(p.ids) for p in probes))
    language = LlamaCppLanguage(file, room, setup=Setup(repack=False), exact=True)
    found = []
    try:
        for probe in probes:
            rows = [language.prefill(probe.prompt, probe.visual_given if given_eyes else probe.visual)]
            rows += [language.step([token], [0])[0] for token in probe.ids]
            found.append(np.stack(rows))
    finally:
        language.close()
    return found


def loss(full: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the mean divergence of the next token (nats) and how often the likeliest token stays.

    >>> same = np.log(np.array([[0.5, 0.25, 0.25]]))
    >>> loss([same], [same])
    (0.0, 1.0)
    """
    gaps, stays = [], []
    for ours, theirs in zip(full, given, strict=True):
        one, other = np.stack([log_softmax(row) for row in ours]), np.stack([log_softmax(row) for row in theirs])
        gaps.append((np.exp(one) * (one - other)).sum(axis=-1))
        stays.append(ours.argmax(axis=-1) == theirs.argmax(axis=-1))
    return max(0.0, float(np.concatenate(gaps).mean())), float(np.concatenate(stays).mean())


def _part(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def _weight_error(full: Path, given: Path, headers: tuple[Header, Header], names: Sequence[str]) -> float:
    squares = power = 0.0
    for name in names:
        ours, theirs = (
            FileRows(file, header.tensors[name]) for file, header in zip((full, given), headers, strict=True)
        )
        for begin in range(0, ours.shape[0], ROWS_AT_ONCE):
            one, other = ours[begin : begin + ROWS_AT_ONCE], theirs[begin : begin + ROWS_AT_ONCE]
            squares, power = squares + float(np.square(one - other).sum()), power + float(np.square(one).sum())
    return float((squares / max(power, 1e-30)) ** 0.5)


def _with_group(full: Path, given: Path, headers: tuple[Header, Header], names: set[str], out: Path) -> Path:
    """Write the full file with the matrices of one group as they were given."""
    tensors = []
    for name, fact in headers[0].tensors.items():
        file, fact = (given, headers[1].tensors[name]) if name in names else (full, fact)
        rows = FileRows(file, fact, as_stored=True)
        tensors.append(Planned(name, fact.shape, KINDS[fact.kind], functools.partial(lambda rows: rows, rows)))
    return write_planned(out, headers[0].architecture, functools.partial(copy_keys, full), tensors)


def _loss(
    group: str, header: Header, names: Sequence[str], error: float, told: tuple[float, float] | tuple[None, None]
) -> GroupLoss:
    kinds: dict[str, int] = {}
    for name in names:
        kind = KINDS[header.tensors[name].kind]
        kinds[kind] = kinds.get(kind, 0) + 1
    size = sum(header.tensors[name].num_bytes for name in names)
    return GroupLoss(group=group, kinds=kinds, num_bytes=size, weight_error=error, divergence=told[0],
                     same_choice=told[1])  # fmt: skip
