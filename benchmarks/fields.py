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

from PIL import Image

import handlens
from handlens.align.judge import calibration_error
from handlens.data.generate import generate
from handlens.data.generate.scene_talk import COLOURS
from handlens.data.records import Record
from handlens.eval.stats import bootstrap
from handlens.fields.answers import FieldAnswer
from handlens.fields.calibration import Calibration, case_of, fit, save
from handlens.fields.forms import NOT_PRESENT, parse_number
from handlens.fields.places import Box
from handlens.fields.read import read_fields

KINDS = ("receipts", "forms")
"""Of the calibration; ``--kinds`` also takes scenes, which have no field that is absent."""
SCENE_SCALE = 2
PRESENT, ABSENT = 5, 3
"""So many fields of a picture are asked for that are there, and that are not."""
NUMBERS = ("total", "tip", "discount", "tax", "subtotal", "change")
SAID = {"shop": "What is the name of the shop?", "time": "What time is printed?"}


Truth = str | bool | None
"""As it is printed, or whether a box is ticked; None where the picture does not show it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One field that is asked for, and what is true of it."""

    name: str
    schema: dict[str, Any]
    truth: Truth
    middles: tuple[tuple[float, float], ...] = ()
    """Middle of every place where it is printed, in px."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One field of one picture."""

    answer: FieldAnswer
    truth: Truth
    is_right: bool
    is_found: bool | None
    """True where the box holds the middle of the value; None where that is not asked."""
    is_in_slice: bool
    """True where the slice holds it."""
    area: float
    """Share of the picture that the box takes."""


def cases_of(record: Record, rng: Random) -> list[Case]:
    """Return what is asked of a picture."""
    if record.kind == "scenes":
        return scene_cases(record)
    if record.kind == "forms":
        from handlens.data.generate.forms import FIELDS

        truths = {**dict.fromkeys(FIELDS), **{name: value or None for name, value in record.facts["fields"].items()}}
    else:
        from handlens.data.generate.receipt_talk import FIELDS as OPTIONAL

        facts = record.facts
        truths = {
            **dict.fromkeys(OPTIONAL),
            **{name: value for name, value in facts["fields"].items() if name in OPTIONAL},
            **{name: facts[name] for name in ("shop", "date", "time", "total")},
        }
    there = [name for name, value in truths.items() if value is not None]
    absent = [name for name, value in truths.items() if value is None]
    names = rng.sample(there, min(PRESENT, len(there))) + rng.sample(absent, min(ABSENT, len(absent)))
    cases = []
    for name in names:
        said = {"description": SAID[name]} if name in SAID else {}
        schema = {"type": "number" if name in NUMBERS else "string", **said}
        truth = truths[name]
        cases.append(Case(name=name, schema=schema, truth=truth, middles=middles_of(record, truth) if truth else ()))
    for name, is_on in list(record.facts.get("ticks", {}).items())[:2]:
        schema = {"type": "boolean", "description": f"Is {name} ticked?"}
        cases.append(Case(name=f"tick {name}", schema=schema, truth=is_on))
    return cases


def scene_cases(record: Record) -> list[Case]:
    """Ask for the colour of every shape that stands alone: what a model that does not read can be found by."""
    count = Counter(thing.shape for thing in record.things)
    cases = []
    for thing in record.things:
        if count[thing.shape] == 1:
            left, top, right, bottom = (SCENE_SCALE * side for side in thing.box)
            schema = {"enum": sorted(COLOURS), "description": f"What is the color of the {thing.shape}?"}
            middle = ((left + right) / 2, (top + bottom) / 2)
            cases.append(Case(name=thing.shape, schema=schema, truth=thing.colour, middles=(middle,)))
    return cases


def is_right(field: FieldAnswer, text: str, truth: Truth) -> bool:
    if truth is None or text == NOT_PRESENT:
        return truth is None and text == NOT_PRESENT
    value = field.field.form.parse(text)
    if isinstance(truth, bool):
        return value is truth
    if field.field.form.kind == "number":
        return abs(value - parse_number(truth)) < 0.005
    return " ".join(value.split()).casefold() == " ".join(truth.split()).casefold()


def middles_of(record: Record, value: str) -> tuple[tuple[float, float], ...]:
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
    return tuple(found)


def rows_of(
    model: Any, kind: str, split: str, seed: int, index: int, calibration: Calibration, look_again: float, find: bool
) -> list[Row]:
    """Return the rows of one picture."""
    record = generate(kind, seed, index, split=split)
    picture = record.picture
    if kind == "scenes":  # so that it has slices
        picture = picture.resize((SCENE_SCALE * picture.width, SCENE_SCALE * picture.height), Image.Resampling.BICUBIC)
    cases = {case.name: case for case in cases_of(record, Random(f"{kind} {seed} {index}"))}
    if not cases:
        return []
    schema = {"type": "object", "properties": {case.name: case.schema for case in cases.values()}}
    found = read_fields(model, picture, schema, find=find, look_again_below=look_again, calibration=calibration)
    return [row_of(one, cases[one.field.path[-1]], picture.width * picture.height) for one in found.answers]


def row_of(one: FieldAnswer, case: Case, area_px: int) -> Row:
    is_good = is_right(one, one.text, case.truth)
    is_asked = one.box is not None and one.place is not None and is_good and bool(case.middles)
    return Row(
        answer=one, truth=case.truth, is_right=is_good, is_found=holds(one.box, case) if is_asked else None,
        is_in_slice=holds(one.place.box if one.place else None, case), area=area_of(one.box) / area_px,
    )  # fmt: skip


def holds(box: Box | None, case: Case) -> bool:
    return box is not None and any(box[0] <= x < box[2] and box[1] <= y < box[3] for x, y in case.middles)


def area_of(box: Box | None) -> int:
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0


def fitted(pictures: Sequence[Sequence[Row]]) -> tuple[dict[str, Any], Counter[str]]:
    """Return lines for all cases; every field was looked at twice, so each gives an example of one look and of two."""
    examples: list[tuple[str, float, bool]] = []
    for row in (row for rows in pictures for row in rows):
        first = row.answer.readings[0]
        once = case_of(is_present=first.is_present, looks=1, agree=True)
        examples += [
            (once, first.probability, is_right(row.answer, first.text, row.truth)),
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
        before = sum(is_right(row.answer, row.answer.readings[0].text, row.truth) for row in twice)
        print(f"  of these right after one look, two   {before}, {sum(row.is_right for row in twice)} of {len(twice)}")
    print(f"  calibration error of the probability {error(lambda row: row.answer.probability)}")
    print(f"  calibration error of the confidence  {error(lambda row: row.answer.confidence)}")
    held = share(lambda row: row.is_found is not None, lambda row: bool(row.is_found))
    print(f"  box holds the value, of right ones   {held}")
    sliced = share(lambda row: row.is_found is not None, lambda row: row.is_in_slice)
    print(f"  slice holds the value, of right ones {sliced}")
    areas = [row.area for rows in pictures for row in rows if row.is_found is not None]
    if areas:
        print(f"  area of a box, median                {100 * statistics.median(areas):.0f} % of the picture")


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
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=[*KINDS, "scenes"])
    options = parser.parse_args()
    model = handlens.load(options.model, keep=True)
    calibration = None
    if options.fit:
        learned = [rows_of(model, kind, "validation", options.seed, index, Calibration(), 1.0, False)
                   for kind in options.kinds for index in range(options.fit)]  # fmt: skip
        lines, counts = fitted(learned)
        manifest = json.loads((model.folder / "manifest.json").read_text())
        weights = next(facts["sha256"] for name, facts in manifest["files"].items()
                       if name.startswith("language-") and name.endswith(".gguf"))  # fmt: skip
        made = {
            "command": f"python {' '.join(sys.argv)}", "date": datetime.date.today().isoformat(),
            "data": f"{', '.join(options.kinds)}; validation split, seed {options.seed}",
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
    for kind in options.kinds:
        pictures = [rows_of(model, kind, "heldout", options.seed, index, calibration, 0.9, not options.no_places)
                    for index in range(options.test)]  # fmt: skip
        report(kind, pictures)
        everything += pictures
    if len(options.kinds) > 1:
        report("all", everything)


if __name__ == "__main__":
    main()
