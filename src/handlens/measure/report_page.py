"""A report as one HTML file with charts: no script, no request, readable in light and dark.

Boundary: records of ``report.py`` in, text out; one record, or several to compare.
"""

from collections.abc import Sequence
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
    ("first word, cold, s", "cold_first_word_seconds", "{:.2f}"),
    ("first word, warm, s", "warm_first_word_seconds", "{:.2f}"),
    ("speed of the last third over the first", "late_over_early", "{:.2f}"),
    ("pictures", "pictures", "{:.0f}"),
)
SAMPLED = (("celsius", "temperature, degrees Celsius", 1.0), ("megahertz", "clock, MHz", 1.0),
           ("joules", "energy, joules", 1.0), ("resident_bytes", "memory, MB", 1e6))  # fmt: skip


def page(records: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    names = [f"{record['model']} {record['quantisation']} on {record['processor']}" for record in records]
    body = [f"<h1>{escape(' and '.join(names))}</h1>", _table(records, names)]
    body.append(_answers(records, names, "tokens per second while answering", "tokens/s", _speed))
    body.append(_answers(records, names, "first word", "seconds", lambda answer: answer["first_word_seconds"]))
    for key, label, scale in SAMPLED:
        series = [
            Series(name=name, is_line=True, points=[(row["seconds"], row[key] / scale) for row in record["samples"]
                                                    if row[key] is not None])
            for record, name in zip(records, names, strict=True)
        ]  # fmt: skip
        if any(one.points for one in series):
            body.append(chart(label, "seconds", label.rpartition(", ")[2], series))
        else:
            body.append(f"<p>{escape(label)}: not measurable here</p>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(names[0])}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"


def _speed(answer: dict[str, Any]) -> float:
    return answer["tokens"] / answer["decode_seconds"] if answer["decode_seconds"] else 0.0


def _answers(records: Sequence[dict[str, Any]], names: Sequence[str], title: str, unit: str, value: Any) -> str:
    series = [
        Series(name=name, is_line=True, points=[(answer["at_seconds"], value(answer)) for answer in record["answers"]])
        for record, name in zip(records, names, strict=True)
    ]
    return chart(title, "seconds", unit, series)


def _table(records: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    rows = [[label, *(form.format(record["summary"][key]) for record in records)] for label, key, form in ROWS]
    for phase in records[0]["memory"]["phases"]:
        found = [
            next((human(one["peak_bytes"]) for one in record["memory"]["phases"] if one["name"] == phase["name"]), "-")
            for record in records
        ]
        rows.append([f"peak memory, {phase['name']}", *found])
    for key, label in (("joules_per_picture", "joules per picture"), ("joules_per_token", "joules per token")):
        rows.append([label, *(_joules(record["energy"], key) for record in records)])
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _joules(energy: dict[str, Any], key: str) -> str:
    return "not measurable here" if energy[key] is None else f"{energy[key]:g} ({energy['method']})"
