"""The comparisons of RLAIF-V on generated truth: what each part of the method is worth.

Boundary: a policy in, one table out; every variant is an ordinary run in a folder of its own, resumable as that.
Source: the questions of RLAIF-V (arXiv 2405.17220), section 4.3, and the shape of MiniCPM-V (arXiv 2408.01800),
Table 6: with and without alignment, the general tasks beside it.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handlens.align.measure import describe_all, figures_to_json, general_tasks, rates, scenes
from handlens.align.rounds import Alignment, NoPair, Report, align
from handlens.align.sample import RULES
from handlens.align.truth import Mentions, hallucination, rate_mentions
from handlens.errors import SettingError, did_you_mean
from handlens.eval.stats import bootstrap
from handlens.model.halves import open_torch
from handlens.train.ledger import write_whole

RATES = ("response", "mention", "recall", "words")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    name: str
    about: str


VARIANTS = (
    Variant(name="full", about="the settings of the call, all rounds"),
    Variant(name="one-round", about="as full, one round with as many pictures in all"),
    Variant(name="own-judge", about="as one-round, judged by the policy itself with open questions"),
    Variant(name="yes-no", about="as own-judge, with questions of yes and no"),
    Variant(name="off-policy", about="as one-round, answers are true ones with words changed, not the policy's own"),
    Variant(name="whole", about="as one-round, one score for the whole answer instead of claims"),
    Variant(name="balanced", about="as one-round, lengths balanced, facts not looked at"),
    Variant(name="unbalanced", about="as one-round, lengths not balanced, facts not looked at"),
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
    if name in ("own-judge", "yes-no"):
        return replace(one, judge="policy", yes_no=name == "yes-no")
    if name == "whole":
        pairing = replace(one.pairing, scoring="whole", difference=0.05, keeps_facts=False)
        return replace(one, divider="whole", pairing=pairing)
    if name in ("balanced", "unbalanced"):
        return replace(one, pairing=replace(one.pairing, balance=name == "balanced", keeps_facts=False))
    return one


def run_experiment(ask: Experiment, report: Report = lambda row: None) -> dict[str, Any]:
    """Run every variant with every seed, measure, and write ``experiment.json`` and ``table.md``.

    A variant that gives no pair stands in the table with the reason.
    """
    out = ask.base.out
    out.mkdir(parents=True, exist_ok=True)
    names = [variant.name for variant in VARIANTS]
    rows = [{"variant": "before", "about": "the policy before alignment"} | _measured(ask, [ask.base.model], report)]
    for name in ask.variants:
        about = next(variant.about for variant in VARIANTS if variant.name == name)
        folders, notes = [], []
        for seed in ask.seeds:
            one = variant_of(ask.base, name, seed, out)
            if not (one.out / "aligned" / "model.safetensors").exists():
                share_answers(one, [variant_of(ask.base, other, seed, out) for other in names])
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


def share_answers(one: Alignment, others: Sequence[Alignment]) -> None:
    """Begin a run with the answers of another whose first round asks the same: variants differ after them."""
    file = one.out / "round-1" / "answers.jsonl"
    same = [
        other.out / "round-1" / "answers.jsonl"
        for other in others
        if (other.answers_from, other.sampling, other.seed) == (one.answers_from, one.sampling, one.seed)
        and other.pictures <= one.pictures
    ]
    known = max((other for other in same if other.is_file()), key=lambda other: other.stat().st_size, default=None)
    if known is not None and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(known, file)


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
                told["tasks"] = general_tasks(answerer, ask.tasks, news=news)
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
    return {"rates": together, "tasks": {name: _exact([one[name] for one in tasks]) for name in tasks[0]}}


def _exact(seeds: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Return the share of exact answers in percent, over all seeds; units are questions."""
    units = list(zip(*seeds, strict=True))

    def value(drawn: Sequence[tuple[bool, ...]]) -> float:
        return 100 * sum(sum(unit) for unit in drawn) / (len(drawn) * len(seeds))

    interval = bootstrap(units, value, draws=400)
    return {"value": round(value(units), 2), "interval": [round(interval.low, 2), round(interval.high, 2)]}


def _named(report: Report, name: str, seed: int) -> Report:
    return lambda row: report(row | {"variant": name, "seed": seed})


def _news(report: Report, folder: Path) -> Callable[[int, int], None]:
    return lambda done, of: report({"station": f"measure {folder.parent.name}", "step": done, "of": of})


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown: rates and exact answers of the general tasks, in percent with 95 % intervals."""
    tasks = sorted({name for row in rows for name in row["tasks"]})
    head = ["variant", "response", "mention", "recall", "words", *tasks]
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
        for name in tasks:
            one = row["tasks"].get(name)
            cells.append(
                "-" if one is None else f"{one['value']:.1f} ({one['interval'][0]:.1f}-{one['interval'][1]:.1f})"
            )
        lines.append("| " + " | ".join(cells) + " |")
    notes = ["; ".join([f"- **{row['variant']}**: {row['about']}", *row.get("notes", ())]) for row in rows]
    return "\n".join([*lines, "", *notes]) + "\n"
