"""Measure fields on generated receipts and forms: accuracy, calibration, "not present", places.

python benchmarks/fields.py --model nano --fit 300 --test 300 --write src/handlens/fields/nano.json

Lines of calibration are fitted on the validation split; everything that is printed is measured on the held-out split
(words, fonts and layouts that neither training nor the fit saw). Intervals are 95 %, pictures drawn with replacement.
"""

import argparse
import datetime
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import handlens
from handlens.align.judge import calibration_error
from handlens.data.generate import generate
from handlens.data.records import Record
from handlens.eval.stats import bootstrap
from handlens.fields.answers import FieldAnswer
from handlens.fields.calibration import Calibration, case_of, fit, save
from handlens.fields.forms import NOT_PRESENT, parse_number
from handlens.fields.read import read_fields

KINDS = ("receipts", "forms")
PRESENT, ABSENT = 5, 3
"""So many fields of a picture are asked for that are there, and that are not."""
NUMBERS = ("total", "tip", "discount", "tax", "subtotal", "change")
SAID = {"shop": "What is the name of the shop?", "time": "What time is printed?"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One field of one picture."""

    answer: FieldAnswer
    truth: str | None
    """As it is printed; None where it is not."""
    is_right: bool
    is_found: bool | None
    """True where the box holds the middle of the printed value; None where that is not asked."""
    area: float
    """Share of the picture that the box takes."""


def truths_of(record: Record) -> dict[str, str | None]:
    """Return every field that can be asked for, as printed, None where the picture does not show it."""
    if record.kind == "forms":
        from handlens.data.generate.forms import FIELDS

        return {**dict.fromkeys(FIELDS), **{name: value or None for name, value in record.facts["fields"].items()}}
    from handlens.data.generate.receipt_talk import FIELDS as OPTIONAL

    facts = record.facts
    return {
        **dict.fromkeys(OPTIONAL),
        **{name: value for name, value in facts["fields"].items() if name in OPTIONAL},
        **{name: facts[name] for name in ("shop", "date", "time", "total")},
    }


def chosen(record: Record, rng: Random) -> dict[str, str | None]:
    truths = truths_of(record)
    there = [name for name, value in truths.items() if value is not None]
    absent = [name for name, value in truths.items() if value is None]
    names = rng.sample(there, min(PRESENT, len(there))) + rng.sample(absent, min(ABSENT, len(absent)))
    return {name: truths[name] for name in names}


def schema_of(names: Sequence[str], ticks: Sequence[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name in names:
        kind = "number" if name in NUMBERS else "string"
        properties[name] = {"type": kind, **({"description": SAID[name]} if name in SAID else {})}
    for name in ticks:
        properties[f"tick {name}"] = {"type": "boolean", "description": f"Is {name} ticked?"}
    return {"type": "object", "properties": properties}


def right(field: FieldAnswer, text: str, truth: str | bool | None) -> bool:
    if truth is None or text == NOT_PRESENT:
        return truth is None and text == NOT_PRESENT
    value = field.field.form.parse(text)
    if isinstance(truth, bool):
        return value is truth
    if field.field.form.kind == "number":
        return abs(value - parse_number(truth)) < 0.005
    return " ".join(value.split()).casefold() == " ".join(truth.split()).casefold()


def middles_of(record: Record, value: str) -> list[tuple[float, float]]:
    """Return the middle of every place where a value is printed."""
    found = []
    for line in record.lines:
        start = line.text.find(value)
        while start >= 0:
            boxes = [glyph.box for glyph in line.glyphs[start : start + len(value)]]
            left, right = min(box[0] for box in boxes), max(box[2] for box in boxes)
            top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
            found.append(((left + right) / 2, (top + bottom) / 2))
            start = line.text.find(value, start + 1)
    return found


def rows_of(
    model: Any, kind: str, split: str, seed: int, index: int, calibration: Calibration, look_again: float, find: bool
) -> list[Row]:
    """Return the rows of one picture."""
    record = generate(kind, seed, index, split=split)
    rng = Random(f"{kind} {seed} {index}")
    truths: dict[str, str | bool | None] = dict(chosen(record, rng))
    ticks = list(record.facts.get("ticks", {}))[:2]
    schema = schema_of(list(truths), ticks)
    truths |= {f"tick {name}": record.facts["ticks"][name] for name in ticks}
    found = read_fields(
        model, record.picture, schema, find=find, look_again_below=look_again, calibration=calibration
    )  # fmt: skip
    rows = []
    area = record.picture.width * record.picture.height
    for one in found.answers:
        truth = truths[one.field.path[-1]]
        is_right = right(one, one.text, truth)
        hit = None
        if one.box and is_right and isinstance(truth, str):
            left, top, edge, bottom = one.box
            places = middles_of(record, truth)
            hit = any(left <= x < edge and top <= y < bottom for x, y in places) if places else None
        size = (one.box[2] - one.box[0]) * (one.box[3] - one.box[1]) / area if one.box else 0.0
        rows.append(Row(answer=one, truth=str(truth) if truth is not None else None, is_right=is_right,
                        is_found=hit, area=size))  # fmt: skip
    return rows


def fitted(
    pictures: Sequence[Sequence[Row]], truths: Callable[[Row, str], bool]
) -> tuple[dict[str, Any], Counter[str]]:
    """Return lines for all cases; every field was looked at twice, so each gives an example of one look and of two."""
    examples: list[tuple[str, float, bool]] = []
    for row in (row for rows in pictures for row in rows):
        first = row.answer.readings[0]
        once = case_of(is_present=first.is_present, looks=1, agree=True)
        examples += [
            (once, first.probability, truths(row, first.text)),
            (row.answer.case, row.answer.probability, row.is_right),
            ("missing", first.absent, row.truth is None),
        ]
    return fit(examples), Counter(case for case, _, _ in examples)


def report(name: str, pictures: list[list[Row]]) -> None:
    """Print figures of one kind."""

    def share(pick: Callable[[Row], bool], good: Callable[[Row], bool]) -> str:
        def statistic(units: Sequence[list[Row]]) -> float:
            rows = [row for unit in units for row in unit if pick(row)]
            return 100 * sum(map(good, rows)) / len(rows) if rows else float("nan")

        count = sum(pick(row) for unit in pictures for row in unit)
        interval = bootstrap(pictures, statistic)
        return f"{statistic(pictures):.1f} % [{interval.low:.1f}, {interval.high:.1f}] of {count}"

    def error(of: Callable[[Row], float]) -> str:
        def statistic(units: Sequence[list[Row]]) -> float:
            rows = [row for unit in units for row in unit]
            return 100 * calibration_error([of(row) for row in rows], [row.is_right for row in rows])

        interval = bootstrap(pictures, statistic)
        return f"{statistic(pictures):.1f} points [{interval.low:.1f}, {interval.high:.1f}]"

    print(f"\n{name}: {len(pictures)} pictures, {sum(map(len, pictures))} fields")
    print(f"  right                                {share(lambda row: True, lambda row: row.is_right)}")
    print(
        f"  right where it is printed            {share(lambda row: row.truth is not None, lambda row: row.is_right)}"
    )
    print(f"  right where it is not                {share(lambda row: row.truth is None, lambda row: row.is_right)}")
    denied = share(lambda row: not row.answer.is_present, lambda row: row.truth is None)
    print(f"  'not present' that is true           {denied}")
    print(f"  looked at twice                      {share(lambda row: True, lambda row: row.answer.looks > 1)}")
    twice = [row for rows in pictures for row in rows if row.answer.looks > 1]
    if twice:
        before = sum(right(row.answer, row.answer.readings[0].text, truth_of(row)) for row in twice)
        print(f"  of these right after one look, two   {before}, {sum(row.is_right for row in twice)} of {len(twice)}")
    print(f"  calibration error of the probability {error(lambda row: row.answer.probability)}")
    print(f"  calibration error of the confidence  {error(lambda row: row.answer.confidence)}")
    held = share(lambda row: row.is_found is not None, lambda row: bool(row.is_found))
    print(f"  box holds the value, of right ones   {held}")
    areas = [row.area for rows in pictures for row in rows if row.is_found is not None]
    if areas:
        print(f"  area of a box, median                {100 * statistics.median(areas):.0f} % of the picture")


def truth_of(row: Row) -> str | bool | None:
    if row.answer.field.form.kind == "truth":
        return row.truth == "True"
    return row.truth


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="nano")
    parser.add_argument(
        "--fit", type=int, default=300, help="pictures of each kind to fit the lines on; 0 takes the model's"
    )
    parser.add_argument("--test", type=int, default=300, help="pictures of each kind to measure on")
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--no-places", action="store_true")
    parser.add_argument(
        "--write", type=Path, help="where the calibration goes: fields.json of a bundle, or the package's"
    )
    options = parser.parse_args()
    model = handlens.load(options.model, keep=True)
    calibration = None
    if options.fit:
        learned = [rows_of(model, kind, "validation", options.seed, index, Calibration(), 1.0, False)
                   for kind in KINDS for index in range(options.fit)]  # fmt: skip
        lines, counts = fitted(learned, lambda row, text: right(row.answer, text, truth_of(row)))
        manifest = json.loads((model.folder / "manifest.json").read_text())
        weights = next(facts["sha256"] for name, facts in manifest["files"].items()
                       if name.startswith("language-") and name.endswith(".gguf"))  # fmt: skip
        made = {
            "command": f"python {' '.join(sys.argv)}", "date": datetime.date.today().isoformat(),
            "data": f"{', '.join(KINDS)}; validation split, seed {options.seed}",
            "examples": dict(sorted(counts.items())),
        }  # fmt: skip
        calibration = Calibration(lines=lines, weights=weights, made=made)
        print("lines:", {case: (round(line.slope, 2), round(line.offset, 2)) for case, line in lines.items()})
        if options.write:
            save(calibration, options.write)
            print(f"wrote {options.write}")
    from handlens.fields.calibration import calibration_of

    calibration = calibration or calibration_of(model.folder)
    everything = []
    for kind in KINDS:
        pictures = [rows_of(model, kind, "heldout", options.seed, index, calibration, 0.9, not options.no_places)
                    for index in range(options.test)]  # fmt: skip
        report(kind, pictures)
        everything += pictures
    report("both", everything)


if __name__ == "__main__":
    main()
