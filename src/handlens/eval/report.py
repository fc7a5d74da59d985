"""One HTML page of an evaluation: scores, intervals, settings, differences, and what went wrong as pictures.

Boundary: results in, one file out; it asks for nothing outside itself. Every text of a model or a data set is escaped.
"""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from handlens.errors import HandlensError, SettingError
from handlens.eval.readers import open_source
from handlens.eval.runner import Result
from handlens.eval.task import LEADERBOARD, SHIPPED, Item

SHOWN_WRONG = 24
"""Wrong answers of a task and recipe that are shown, the first in the order of the items."""
PICTURE_PX = 280
LONGEST_TEXT = 600
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--bad:#c0392b;--good:#1e8449}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{border-bottom:1px solid var(--line);padding:.35rem .6rem;
text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.dim{opacity:.7;font-size:.85em}.wrong{display:grid;grid-template-columns:repeat(auto-fill,minmax(18rem,1fr));gap:1rem}
figure{margin:0;padding:.8rem;background:var(--soft);border-radius:.5rem;overflow-wrap:anywhere}
figure img{max-width:100%;border-radius:.3rem;background:#fff}figcaption{font-size:.85rem}
.truth{color:var(--good)}.said{color:var(--bad);white-space:pre-wrap}pre{white-space:pre-wrap;overflow-wrap:anywhere;
background:var(--soft);padding:.8rem;border-radius:.5rem;font-size:.8rem}summary{cursor:pointer}
"""


def write_page(results: Sequence[Result], comparisons: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the page.

    Raises:
        SettingError: the file cannot be written, or the numbers come from two graders.
    """
    check_one_grader(results)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Evaluation of {escape(', '.join(_models(results)))}</title><style>{_STYLE}</style>",
        f"<h1>Evaluation of {escape(', '.join(_models(results)))}</h1>",
        _score_table(results),
        _difference_table(comparisons),
        *(_task_part(result) for result in results),
    ]
    try:
        file.write_text("\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    except OSError as cause:
        raise SettingError(f"cannot write the page {file}: {cause.strerror or cause}") from None


def check_one_grader(results: Sequence[Result]) -> None:
    """Raise ``SettingError`` when numbers of one task come from two graders, or two graders graded at all."""
    graders = {(result.grader["grader"], result.grader.get("version")) for result in results} - {
        ("rules", None),
        ("see the parts", None),
    }
    by_task: dict[str, set[str]] = {}
    for result in results:
        by_task.setdefault(result.task, set()).add(
            json.dumps([result.grader["grader"], result.grader.get("prompt_sha256")])
        )
    mixed = sorted(task for task, found in by_task.items() if len(found) > 1)
    if len(graders) > 1:
        raise SettingError(
            f"one table never holds two graders; given are {', '.join(str(g[0]) for g in sorted(graders, key=str))}"
        )
    if mixed:
        raise SettingError(
            f"{', '.join(mixed)}: one number is graded, another marked by rules; make both in the same way"
        )


def _models(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.model for result in results))


def number(result: Result | None) -> str:
    """Return a value with its interval, or a dash."""
    if result is None or result.value is None:
        return "-"
    if result.interval is None or result.interval.method == "none":
        return f"{result.value:.1f}"
    return f"{result.value:.1f} [{result.interval.low:.1f}, {result.interval.high:.1f}]"


def find_result(results: Sequence[Result], model: str, task: str, recipe: str) -> Result | None:
    """Return the result of that model, task and recipe, or None."""
    return next((r for r in results if (r.model, r.task, r.recipe) == (model, task, recipe)), None)


def _score_table(results: Sequence[Result]) -> str:
    head = _head("task", "model", "as shipped", "leaderboard recipe", "questions", "marked by")
    rows = []
    for task, model in dict.fromkeys((result.task, result.model) for result in results):
        columns = [find_result(results, model, task, recipe) for recipe in (SHIPPED, LEADERBOARD)]
        one = next(result for result in columns if result is not None)
        cells = "".join(f'<td class="n">{escape(number(column))}</td>' for column in columns)
        rows.append(
            f'<tr><td>{escape(one.title)}<br><span class="dim">{escape(one.metric)}</span></td><td>{escape(model)}</td>'
            f'{cells}<td class="n">{one.count}</td><td>{escape(str(one.grader["grader"]))}</td></tr>'
        )
    told = "<p class=dim>In brackets: 95 % interval. Wrong, missing and silent answers are all counted.</p>"
    return f"<table>{head}{''.join(rows)}</table>{told}"


def _head(*names: str) -> str:
    return "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"


def _difference_table(comparisons: Sequence[dict[str, Any]]) -> str:
    if not comparisons:
        return ""
    head = _head("task", "recipe", "difference", "95 % interval", "p", "test")
    rows = "".join(
        f"<tr><td>{escape(one['task'])}</td><td>{escape(one['recipe'])}</td><td class=n>{one['difference']:+.1f}</td>"
        f"<td class=n>[{one['interval']['low']:+.1f}, {one['interval']['high']:+.1f}]</td>"
        f"<td class=n>{one['p']:.3g}</td><td>{escape(one['test'])}</td></tr>"
        for one in comparisons
    )
    names = f"{comparisons[0]['first']} minus {comparisons[0]['second']}"
    told = "<p class=dim>Both answered the same questions.</p>"
    return f"<h2>Difference: {escape(names)}</h2>{told}<table>{head}{rows}</table>"


def _task_part(result: Result) -> str:
    counts = ", ".join(f"{count} {escape(name.replace('_', ' '))}" for name, count in result.counts.items() if count)
    figures = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{value:.2f}</td></tr>' for name, value in result.figures.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    agreed = f"<p>Grader and rules: {escape(_told(result.agreement))}</p>" if result.agreement else ""
    settings = escape(json.dumps({"grader": result.grader, **result.settings}, indent=1, ensure_ascii=False))
    return (
        f"<h2>{escape(result.title)}, {escape(result.model)}, {escape(result.recipe)}</h2><p>{escape(number(result))} "
        f"{escape(result.metric)}. {counts}.</p>{f'<ul>{notes}</ul>' if notes else ''}{agreed}"
        f"<details><summary>All figures</summary><table>{figures}</table></details>"
        f"<details><summary>Settings</summary><pre>{settings}</pre></details>{_wrong(result)}"
    )


def _told(agreed: dict[str, float]) -> str:
    return (
        f"the same mark on {agreed['equal']:.1%} of {agreed['answers']:.0f} answers, kappa {agreed['kappa']:.2f}, "
        f"mean gap {agreed['mean_gap']:+.2f}"
    )


def _wrong(result: Result) -> str:
    rows = zip(result.items, result.given, result.marks, strict=True)
    wrong = [row for row in rows if row[2].score < result.full_mark]
    if not wrong:
        return ""
    figures = []
    for item, given, mark in wrong[:SHOWN_WRONG]:
        said = given.note if given.status in ("no_picture", "failed") else shorten(given.answer) or "(nothing)"
        status = "" if given.status == "ok" and mark.status == "ok" else f" ({given.status}, {mark.status})"
        read = f"<br>read as: {escape(shorten(mark.extracted, 120))}" if mark.extracted else ""
        figures.append(
            f"<figure>{_picture(item)}<figcaption><span class=dim>{escape(item.id)}{escape(status)}</span><br>"
            f"{escape(shorten(item.question))}<br>"
            f"<span class=truth>{escape(shorten(' | '.join(item.truth), 200))}</span><br>"
            f"<span class=said>{escape(said)}</span>{read}</figcaption></figure>"
        )
    head = f"<h3>Without full marks: {len(wrong)} of {result.count}, the first {len(figures)} shown</h3>"
    return f"{head}<div class=wrong>{''.join(figures)}</div>"


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text, or its beginning with its length."""
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text):,} characters)"


def _picture(item: Item) -> str:
    if not item.pictures:
        return ""
    try:
        image = open_source(item.pictures[0], item.id).image
    except HandlensError as error:
        return f"<p class=dim>{escape(str(error))}</p>"
    scale = min(1.0, PICTURE_PX / max(image.size))
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
