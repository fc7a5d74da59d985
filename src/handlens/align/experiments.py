"""The comparisons of RLAIF-V on generated truth: what each part of the method is worth.

Boundary: a policy in, one table out; every variant is an ordinary run in a folder of its own, resumable as that.
Source: the questions of RLAIF-V (arXiv 2405.17220), section 4.3, and the shape of MiniCPM-V (arXiv 2408.01800),
Table 6: with and without alignment, the general tasks beside it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handlens.align.measure import describe_all, figures_to_json, rates, scenes
from handlens.align.pairs import HowToPair
from handlens.align.rounds import Alignment, NoPair, Report, align
from handlens.align.sample import RULES
from handlens.align.truth import Mentions, hallucination, rate_mentions
from handlens.errors import SettingError, did_you_mean
from handlens.eval.heldout import evaluate
from handlens.eval.stats import bootstrap
from handlens.model.halves import open_torch
from handlens.train.ledger import write_whole

KINDS = ("lines", "scenes", "receipts", "labels", "tables")
RATES = ("response", "mention", "recall", "words")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    name: str
    about: str


VARIANTS = (
    Variant(name="full", about="claims, on-policy, lengths balanced, all rounds"),
    Variant(name="one-round", about="as full, one round with as many pictures in all"),
    Variant(name="off-policy", about="as one-round, answers are true ones with words changed, not the policy's own"),
    Variant(name="whole", about="as one-round, one score for the whole answer instead of claims"),
    Variant(name="unbalanced", about="as one-round, without the balance of lengths"),
)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is asked for."""

    base: Alignment
    variants: tuple[str, ...] = tuple(variant.name for variant in VARIANTS)
    seeds: tuple[int, ...] = (1, 2, 3)
    scenes: int = 200
    """Held-out scenes that are described."""
    tasks: int = 40
    """Held-out pictures of each general kind; 0: none."""

    def __post_init__(self) -> None:
        known = [variant.name for variant in VARIANTS]
        for name in self.variants:
            if name not in known:
                raise SettingError(f"there is no variant '{name}'{did_you_mean(name, known)}")


def variant_of(base: Alignment, name: str, seed: int, out: Path) -> Alignment:
    """Return the run behind a row of the table."""
    one = replace(base, seed=seed, out=out / f"{name}-{seed}")
    if name == "full":
        return one
    one = replace(one, rounds=1, pictures=base.rounds * base.pictures)
    if name == "off-policy":
        return replace(one, answers_from=RULES)
    if name == "whole":
        return replace(one, divider="whole", pairing=HowToPair(scoring="whole", difference=0.05))
    if name == "unbalanced":
        return replace(one, pairing=replace(one.pairing, balance=False))
    return one


def run_experiment(ask: Experiment, report: Report = lambda row: None) -> dict[str, Any]:
    """Run every variant with every seed, measure, and write ``experiment.json`` and ``table.md``.

    A variant that gives no pair stands in the table with the reason.
    """
    out = ask.base.out
    rows = [{"variant": "before", "about": "the policy before alignment"} | _measured(ask, [ask.base.model], report)]
    for name in ask.variants:
        about = next(variant.about for variant in VARIANTS if variant.name == name)
        folders, notes = [], []
        for seed in ask.seeds:
            one = variant_of(ask.base, name, seed, out)
            if not (one.out / "aligned" / "model.safetensors").exists():
                try:
                    align(one, _named(report, name, seed))
                except NoPair as error:
                    notes.append(f"seed {seed}: {error}")
                    continue
            folders.append(one.out / "aligned")
        figures = _measured(ask, folders, report) if folders else {"rates": {}, "tasks": {}}
        rows.append({"variant": name, "about": about, "notes": notes} | figures)
        told = {"rows": rows, "scenes": ask.scenes, "tasks": ask.tasks, "seeds": list(ask.seeds)}
        write_whole(out / "experiment.json", json.dumps(told, indent=2) + "\n")
        write_whole(out / "table.md", table_of(rows))
    return {"folder": str(out), "rows": rows}


def _measured(ask: Experiment, folders: Sequence[Path], report: Report) -> dict[str, Any]:
    """Return the figures of some models together; units are pictures, each with the answers of every seed."""
    some = scenes(ask.scenes)
    every: list[list[Mentions]] = []
    seeds, tasks = [], []
    for folder in folders:
        kept = folder / f"measured-{ask.scenes}-{ask.tasks}.json"
        if not kept.is_file() or folder == ask.base.model:
            kept = ask.base.out / kept.name if folder == ask.base.model else kept
        if kept.is_file():
            told = json.loads(kept.read_text(encoding="utf-8"))
        else:
            answerer = open_torch(folder)
            news = _news(report, folder)
            told = {"answers": describe_all(answerer, some, news=news), "tasks": {}}
            if ask.tasks:
                scored = evaluate(answerer, kinds=KINDS, count=ask.tasks).scores
                told["tasks"] = {one.task: one.exact for one in scored if one.task.endswith("(all)")}
            write_whole(kept, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        seeds.append(figures_to_json(rates(told["answers"], some)))
        tasks.append(told["tasks"])
        every.append([rate_mentions(text, one[1].things) for text, one in zip(told["answers"], some, strict=True)])
    units = list(zip(*every, strict=True))
    together: dict[str, Any] = {}
    for name in RATES:

        def value(drawn: Sequence[tuple[Mentions, ...]], name: str = name) -> float:
            return float(getattr(hallucination([one for unit in drawn for one in unit]), name))

        interval = bootstrap(units, value)
        together[name] = {
            "value": round(value(units), 2),
            "interval": [round(interval.low, 2), round(interval.high, 2)],
            "seeds": [one[name]["value"] for one in seeds],
        }
    means = {
        name: round(100 * sum(one[name] for one in tasks) / len(tasks), 2) for name in tasks[0]
    }  # fmt: skip
    return {"rates": together, "tasks": means}


def _named(report: Report, name: str, seed: int) -> Report:
    return lambda row: report(row | {"variant": name, "seed": seed})


def _news(report: Report, folder: Path) -> Callable[[int, int], None]:
    return lambda done, of: report({"station": f"measure {folder.parent.name}", "step": done, "of": of})


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown: rates in percent with 95 % intervals, then exact answers of the general tasks."""
    tasks = sorted({name for row in rows for name in row["tasks"]})
    head = ["variant", "response", "mention", "recall", "words", *(name.removesuffix(" (all)") for name in tasks)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["variant"]]
        for name in RATES:
            one = row["rates"].get(name)
            if one is None:
                cells.append("-")
                continue
            low, high = one["interval"]
            cells.append(f"{one['value']:.1f} ({low:.1f}-{high:.1f})")
        cells += [f"{row['tasks'][name]:.1f}" if name in row["tasks"] else "-" for name in tasks]
        lines.append("| " + " | ".join(cells) + " |")
    notes = ["; ".join([f"- **{row['variant']}**: {row['about']}", *row.get("notes", ())]) for row in rows]
    return "\n".join([*lines, "", *notes]) + "\n"
