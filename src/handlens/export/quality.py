"""What a model loses in fewer bits: per group of matrices, and per task with a paired test.

Boundary: two bundles of one model in, plain values out. Questions are those of Handlens-Bench, which no training shows;
groups are judged by the logits along the answers of full precision, which tell more than a few hundred answers can.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.engine.answerer import Lens, open_bundle
from handlens.engine.bundle import MANIFEST, Bundle
from handlens.engine.setup import Setup
from handlens.errors import SettingError
from handlens.eval.bench import suite_items
from handlens.eval.bench.rules import RULES
from handlens.eval.stats import Difference, compare_units
from handlens.eval.task import Item
from handlens.export.advice import advise
from handlens.export.bundle import export_bundle, write_manifest
from handlens.export.groups import GroupLoss, MixLoss, Probe, judge_groups, judge_mixes
from handlens.export.importance import Importance
from handlens.export.routes import kind_of

TASKS = {
    "characters": ("read-tiny", "read-small", "read-medium", "read-large", "wide", "tall"),
    "numbers": ("fields", "chart-value", "count"),
    "tables": ("table-cell", "table-markdown"),
    "yes/no": ("presence",),
    "languages": ("language", "read-scripts"),
}
"""Task of the report -> parts of Handlens-Bench."""
LONGEST_ANSWER = 100
NUM_PROBES, PROBE_TOKENS = 20, 24
"""Answers along which logits are compared, and tokens of each."""
MOST_FLOAT_BYTES = 2_000_000_000
"""Torch weights up to this size are compared with 32 bits, larger ones with BF16."""
NUM_WORST = 8


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question and what both said."""

    item: Item = field(repr=False)
    pictures: tuple[Picture, ...] = field(repr=False)
    task: str
    full: str
    given: str
    full_score: float
    given_score: float


@dataclass(frozen=True, kw_only=True)
class TaskLoss:
    """Scores of one task; ``gap`` is fewer bits minus full precision, in points of 100."""

    task: str
    count: int
    full: float
    given: float
    gap: Difference


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Everything that the report shows."""

    model: str
    full: dict[str, Any]
    """``language``, ``vision`` and ``bytes`` of full precision."""
    given: dict[str, Any]
    """The same of what was written."""
    tasks: tuple[TaskLoss, ...]
    """The last is all of them together."""
    same_answers: int
    groups: tuple[GroupLoss, ...]
    mixes: tuple[MixLoss, ...]
    worst: tuple[Asked, ...]
    recommendation: str


@contextlib.contextmanager
def full_bundle(source: Path) -> Iterator[Path]:
    """Give a bundle in full precision: of torch weights a temporary one, a bundle as it is.

    Raises:
        SettingError: the source has no vision half.
    """
    kind = kind_of(source)
    if kind == "bundle":
        yield source
        return
    if kind != "torch":
        raise SettingError(
            f"{source} has no vision half to ask with; give the torch folder or the bundle that it was made of"
        )
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    with tempfile.TemporaryDirectory(prefix="handlens-full-") as folder:
        quant = "F32" if size <= MOST_FLOAT_BYTES else "BF16"
        yield export_bundle(source, Path(folder) / source.resolve().name, quant=quant)


def compare_quality(
    full: Path,
    written: Path,
    *,
    importance: Importance | None = None,
    questions: int = 12,
    longest: int = LONGEST_ANSWER,
) -> Quality:
    """Ask both the same ``questions`` of every task and compare logits group by group.

    ``longest`` is the most tokens of an answer.

    Raises:
        ModelError: a bundle is not whole.
        SettingError: what was written has no language half.
    """
    with _as_bundle(full, written) as given:
        first, second = Bundle.open(full, verify=False), Bundle.open(given, verify=False)
        lenses = [open_bundle(folder, keep=True, profile=False, setup=Setup(repack=False)) for folder in (full, given)]
        asked: list[Asked] = []
        probes: list[Probe] = []
        try:
            for task, item in choose(questions):
                asked.append(_ask(lenses, task, item, probes, longest))
        finally:
            for lens in lenses:
                lens.close()
        probes = _spread(probes, NUM_PROBES)
        sees_otherwise = first.vision != second.vision
        groups = judge_groups(
            first.folder / first.language, second.folder / second.language, probes, with_vision=sees_otherwise
        )
        mixes = judge_mixes(first.folder / first.language, probes, importance)
        tasks = tuple(_loss(task, [one for one in asked if task in (one.task, "all")]) for task in (*TASKS, "all"))
        worst = sorted(asked, key=lambda one: one.given_score - one.full_score)[:NUM_WORST]
        facts: list[dict[str, Any]] = [
            {
                "language": bundle.language.removeprefix("language-").removesuffix(".gguf"),
                "vision": bundle.vision,
                "bytes": sum((bundle.folder / name).stat().st_size for name in (bundle.language, bundle.vision)),
            }
            for bundle in (first, second)
        ]
        return Quality(
            model=second.manifest["name"], full=facts[0], given=facts[1], tasks=tasks, groups=groups, mixes=mixes,
            same_answers=sum(one.full == one.given for one in asked),
            worst=tuple(one for one in worst if one.given_score < one.full_score),
            recommendation=advise(facts[1]["language"], tasks, groups, mixes),
        )  # fmt: skip


def choose(questions: int) -> Iterator[tuple[str, Item]]:
    """Yield task and question, the parts of a task in turns."""
    by_part: dict[str, list[Item]] = {}
    for item in suite_items(None):
        by_part.setdefault(item.category, []).append(item)
    for task, parts in TASKS.items():
        longest = max(len(by_part[part]) for part in parts)
        turns = [by_part[part][turn] for turn in range(longest) for part in parts if turn < len(by_part[part])]
        for item in turns[:questions]:
            yield task, item


def _ask(lenses: Sequence[Lens], task: str, item: Item, probes: list[Probe], longest: int) -> Asked:
    """Ask both and remember the way of the first, along which logits are compared later."""
    answers, ids = [], []
    pictures = tuple(picture for picture in item.pictures if isinstance(picture, Picture))
    seens = [lens.see(pictures) for lens in lenses]
    for lens, seen in zip(lenses, seens, strict=True):
        tokens = list(lens.answer(ask(item.question), seen, Sampling(max_tokens=longest)))
        answers.append("".join(token.text for token in tokens))
        ids.append([token.id for token in tokens])
    visual = [
        np.concatenate([picture.visual_tokens.reshape(-1, picture.visual_tokens.shape[-1]) for picture in seen.pictures
                        if picture.visual_tokens is not None])
        for seen in seens
    ]  # fmt: skip
    prompt = lenses[0].prompt(ask(item.question), seens[0])
    probes.append(Probe(prompt=prompt, ids=tuple(ids[0][:PROBE_TOKENS]), visual=visual[0], visual_given=visual[1]))
    scores = [float(RULES[item.facts["rule"]](answer, item.truth[0])) for answer in answers]
    return Asked(
        item=item, pictures=pictures, task=task, full=answers[0], given=answers[1], full_score=scores[0],
        given_score=scores[1],
    )  # fmt: skip


def _loss(task: str, asked: Sequence[Asked]) -> TaskLoss:
    gap = compare_units([one.given_score for one in asked], [one.full_score for one in asked], scale=100.0)
    full, given = (
        float(np.mean([getattr(one, name) for one in asked])) * 100 for name in ("full_score", "given_score")
    )
    return TaskLoss(task=task, count=len(asked), full=full, given=given, gap=gap)


def _spread(probes: Sequence[Probe], count: int) -> list[Probe]:
    """Take some of many, from all tasks."""
    places = np.linspace(0, len(probes) - 1, min(count, len(probes))).round().astype(int)
    return [probes[place] for place in places]


@contextlib.contextmanager
def _as_bundle(full: Path, written: Path) -> Iterator[Path]:
    """Give a bundle that holds what was written; GGUF files see with the vision half of ``full``."""
    if (written / MANIFEST).is_file():
        yield written
        return
    files = [written] if written.is_file() else [file for file in written.glob("*.gguf") if "mmproj" not in file.name]
    if len(files) != 1:
        raise SettingError(f"{written} has no language file to compare; export a bundle")
    bundle = Bundle.open(full, verify=False)
    with tempfile.TemporaryDirectory(prefix="handlens-given-") as folder:
        for name in bundle.manifest["files"]:
            if not name.endswith((".gguf", ".safetensors")):
                shutil.copyfile(bundle.folder / name, Path(folder) / name)
        quant = files[0].stem.removeprefix("language-")
        (Path(folder) / f"language-{quant}.gguf").symlink_to(files[0].resolve())
        write_manifest(Path(folder), bundle.config, name=written.stem, licence="", ledger=None)
        yield Path(folder)


def to_json(found: Quality) -> dict[str, Any]:
    """Return everything as plain values, pictures by their names."""
    return {
        "schema": "handlens.quality/1",
        "model": found.model,
        "full": found.full,
        "given": found.given,
        "tasks": [asdict(task) for task in found.tasks],
        "same_answers": found.same_answers,
        "groups": [asdict(group) for group in found.groups],
        "mixes": [asdict(mix) for mix in found.mixes],
        "worst": [
            {"id": one.item.id, "task": one.task, "question": one.item.question, "truth": one.item.truth[0],
             "full": one.full, "given": one.given, "full_score": one.full_score, "given_score": one.given_score}
            for one in found.worst
        ],
        "recommendation": found.recommendation,
    }  # fmt: skip
