"""A report as one HTML file with charts: no script, no request, readable in light and dark.

Boundary: records of ``report.py`` in, text out; one record, or several to compare.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from handlens.engine.memory import human
from handlens.measure.charts import Series, chart

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .8rem;border-bottom:1px solid #8885;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;margin:.5rem 0}"
)  # fmt: skip
ROWS = (
    ("pictures per hour", "pictures_per_hour", "{:.1f}"),
    ("tokens/s, sustained", "sustained_tokens_per_second", "{:.2f}"),
    ("tokens/s, least and most", "tokens_per_second_spread", "{0[0]:.2f} to {0[1]:.2f}"),
    ("first word, cold, s", "cold_first_word_seconds", "{:.2f}"),
    ("first word, warm, s", "warm_first_word_seconds", "{:.2f}"),
    ("first word, warm, least and most, s", "warm_first_word_spread", "{0[0]:.2f} to {0[1]:.2f}"),
    ("speed of the last third over the first", "late_over_early", "{:.2f}"),
    ("pictures", "pictures", "{:.0f}"),
)
SAMPLED = (("celsius", "temperature, degrees Celsius", 1.0), ("megahertz", "clock, MHz", 1.0),
           ("joules", "energy, joules", 1.0), ("resident_bytes", "memory, MB", 1e6))  # fmt: skip


def page(records: Sequence[dict[str, Any]], files: Sequence[str] = ()) -> str:
    """Return the page of one record or several.

    Args:
        records: as ``report.py`` makes them.
        files: their names, said where the records do not differ otherwise.
    """
    names = name_records(records, files)
    body = [f"<h1>{escape(' and '.join(names))}</h1>", _pictures(records), _table(records, names)]
    body.append(_answers(records, names, "tokens per second while answering", "tokens/s", _speed))
    body.append(_answers(records, names, "first word", "seconds", lambda answer: answer["first_word_seconds"]))
    for key, label, scale in SAMPLED:
        series = [
            Series(name=name, is_line=True, points=[(row["seconds"], row[key] / scale) for row in record["samples"]
                                                    if row[key] is not None])
            for record, name in zip(records, names, strict=True)
        ]  # fmt: skip
        silent = [one.name for one in series if not one.points]
        if len(silent) < len(series):
            body.append(chart(label, "seconds", label.rpartition(", ")[2], series))
        if silent:
            of = "" if len(silent) == len(series) else f" of {' and '.join(silent)}"
            body.append(f"<p>{escape(label + of)}: not measurable here</p>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(names[0])}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"


def name_records(records: Sequence[dict[str, Any]], files: Sequence[str] = ()) -> list[str]:
    """Return a name for each record that tells it from the others."""
    names = [
        f"{record['model']} {record['quantisation']}{_settings(record)} on {record['processor']}" for record in records
    ]
    if len(set(names)) == len(names):
        return names
    marks = files if len(set(files)) == len(names) else [str(number) for number in range(1, len(names) + 1)]
    return [f"{name} ({mark})" for name, mark in zip(names, marks, strict=True)]


def _settings(record: dict[str, Any]) -> str:
    return f" ({record['settings']})" if record.get("settings") else ""


def _pictures(records: Sequence[dict[str, Any]]) -> str:
    """Say what was asked about; records of different pictures are no comparison."""
    told = []
    for record in records:
        (width, height), slices = record["picture"]["size"], record["picture"]["slices"]
        told.append(f"{width}x{height} px, {slices} {'slice' if slices == 1 else 'slices'}")
    if len(set(told)) > 1:
        return f"<p><strong>Different pictures: {escape(' and '.join(told))}. The figures do not compare.</strong></p>"
    return f"<p>Pictures of {escape(told[0])}, each seen for the first time; both halves held in memory.</p>"


def _speed(answer: dict[str, Any]) -> float:
    return answer["tokens"] / answer["decode_seconds"] if answer["decode_seconds"] else 0.0


def _answers(records: Sequence[dict[str, Any]], names: Sequence[str], title: str, unit: str, value: Any) -> str:
    series = [
        Series(name=name, is_line=True, points=[(answer["at_seconds"], value(answer)) for answer in record["answers"]])
        for record, name in zip(records, names, strict=True)
    ]
    return chart(title, "seconds", unit, series)


def _table(records: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    is_pair = len(records) == 2
    columns = ("", *names, *(["second over first"] if is_pair else []))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows: list[list[str]] = []

    def add(label: str, values: Sequence[Any], form: Callable[[Any], str]) -> None:
        ratio = [ratio_of(*values)] if is_pair else []
        rows.append([label, *map(form, values), *ratio])

    for label, key, form in ROWS:
        add(label, [record["summary"][key] for record in records], form.format)
    for phase in [phase["name"] for phase in records[0]["memory"]["phases"]]:
        is_split = all("warm_peak_bytes" in one for record in records for one in record["memory"]["phases"])
        whens = (("cold_peak_bytes", ", first picture"), ("warm_peak_bytes", ", later")) if is_split else (
            ("peak_bytes", ""),)  # fmt: skip
        for key, when in whens:
            peaks = [
                next((one.get(key) for one in record["memory"]["phases"] if one["name"] == phase), None)
                for record in records
            ]
            add(f"peak memory, {phase}{when}", peaks, lambda peak: "-" if peak is None else human(peak))
    for key, label in (("joules_per_picture", "joules per picture"), ("joules_per_token", "joules per token")):
        add(label, [record["energy"][key] for record in records], _joules)
    method = [record["energy"]["method"] for record in records]
    rows.append(["energy", *method, *([""] if is_pair else [])])
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def ratio_of(first: Any, second: Any) -> str:
    """Return how many times the first the second is, where both are numbers.

    >>> ratio_of(2.0, 3.0), ratio_of(None, 3.0)
    ('1.50', '')
    """
    is_told = isinstance(first, int | float) and isinstance(second, int | float) and first
    return f"{second / first:.2f}" if is_told else ""


def _joules(value: float | None) -> str:
    return "not measurable here" if value is None else f"{value:g}"
