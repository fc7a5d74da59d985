"""The quality report as one HTML file, with the worst examples as pictures, and as JSON beside it.

Boundary: a ``Quality`` in, two files out; no script, no request, readable in light and dark.
"""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageOps

from handlens.errors import SettingError
from handlens.export.quality import Asked, Quality, to_json

LONGEST_SIDE_PX = 480
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .8rem;border-bottom:1px solid #8885;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "figure{margin:1.5rem 0;border-left:3px solid #8885;padding-left:1rem}img{max-width:100%;height:auto}"
    "pre{white-space:pre-wrap;margin:.2rem 0}"
)  # fmt: skip


def write_report(found: Quality, page: Path) -> None:
    """Write ``page`` and the same as JSON beside it.

    Raises:
        SettingError: a file cannot be written.
    """
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render(found), encoding="utf-8")
        text = json.dumps(to_json(found), indent=1, ensure_ascii=False)
        page.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    except OSError as cause:
        raise SettingError(f"cannot write the report {page}: {cause.strerror or cause}") from None


def render(found: Quality) -> str:
    """Return the page."""
    title = f"{found.model}: {found.given['language']} beside {found.full['language']}"
    total = found.tasks[-1].count
    told = (
        f"Vision {found.given['vision']} beside {found.full['vision']}; {found.given['bytes'] / 1e6:.2f} MB beside "
        f"{found.full['bytes'] / 1e6:.2f} MB; {found.same_answers} of {total} answers are the same to the character."
    )
    parts = [
        f"<h1>{escape(title)}</h1><p><strong>{escape(found.recommendation)}</strong></p>",
        f"<p>{escape(told)}</p>",
        "<h2>Tasks</h2><p>Points of 100; the interval is that of the difference, the test is paired.</p>",
        _table(
            ("task", "questions", "full", "fewer bits", "difference", "95 %", "p"),
            (
                (task.task, task.count, f"{task.full:.1f}", f"{task.given:.1f}", f"{task.gap.value:+.1f}",
                 f"{task.gap.interval.low:+.1f} to {task.gap.interval.high:+.1f}", f"{task.gap.p:.2g}")
                for task in found.tasks
            ),
        ),
        "<h2>Groups of matrices</h2><p>Each rounded alone. Divergence of the next token, in nats.</p>",
        _table(
            ("group", "types", "MB", "error of weights", "divergence", "likeliest token stays"),
            (
                (group.group, ", ".join(f"{count} {kind}" for kind, count in group.kinds.items()) or "-",
                 f"{group.num_bytes / 1e6:.2f}" if group.num_bytes else "-", f"{group.weight_error:.4f}",
                 _number(group.divergence, "{:.5f}"), _number(group.same_choice, "{:.1%}"))
                for group in found.groups
            ),
        ),
    ]  # fmt: skip
    if found.mixes:
        rows = (
            (mix.quant, f"{mix.num_bytes / 1e6:.2f}", f"{mix.divergence:.5f}", f"{mix.same_choice:.1%}")
            for mix in found.mixes
        )
        parts += ["<h2>Every mix</h2>", _table(("language half", "MB", "divergence", "likeliest token stays"), rows)]
    parts.append("<h2>Worst examples</h2>")
    parts += [_example(one) for one in found.worst] or ["<p>No answer scores lower than that of full precision.</p>"]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"


def _number(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{body}</table>"


def _example(one: Asked) -> str:
    pictures = "".join(f'<img alt="" src="{_data(picture.image)}">' for picture in one.pictures)
    lines = (
        ("question", one.item.question), ("truth", one.item.truth[0]),
        (f"full precision, {one.full_score:.2f}", one.full), (f"fewer bits, {one.given_score:.2f}", one.given),
    )  # fmt: skip
    said = "".join(f"<pre><b>{escape(name)}:</b> {escape(text)}</pre>" for name, text in lines)
    return f"<figure>{pictures}<figcaption>{escape(one.task)}, {escape(one.item.id)}{said}</figcaption></figure>"


def _data(image: Image.Image) -> str:
    small = image.convert("RGB")
    if max(small.size) > LONGEST_SIDE_PX:
        small = ImageOps.contain(small, (LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
