"""A page that shows pairs with their claims beside the picture: one HTML file, no script, no request.

Boundary: pairs, verdicts and pictures in, text out.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import ImageOps

from handlens.align.asks import Ask
from handlens.align.pairs import Pair
from handlens.errors import HandlensError

WIDEST_PX = 320
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "article{display:grid;grid-template-columns:20rem 1fr 1fr;gap:1.2rem;padding:1.2rem 0;"
    "border-bottom:1px solid #8885}"
    "@media(max-width:60rem){article{grid-template-columns:1fr}}"
    "h2{grid-column:1/-1;font-size:1rem;margin:0}h3{font-size:.9rem;margin:0}img{max-width:100%;height:auto}"
    "ul{list-style:none;padding:0;margin:.5rem 0;font-size:.9rem}li{display:flex;gap:.6rem}"
    "b{flex:0 0 8.6rem;font-weight:600;white-space:nowrap}.wrong b{color:#c33}.right b{color:#282}"
    "table{border-collapse:collapse}td{padding:.15rem 1rem .15rem 0;vertical-align:top}"
)  # fmt: skip


def page(
    pairs: Sequence[Pair], asks: Mapping[str, Ask], judged: Mapping[str, Mapping[str, Any]],
    divided: Mapping[str, Mapping[str, Any]], statistics: Mapping[str, Any], *, title: str, limit: int = 40,
) -> str:  # fmt: skip
    """Return the page with the statistics and the first ``limit`` pairs."""
    body = [f"<h1>{escape(title)}</h1>", _table(statistics)]
    if len(pairs) > limit:
        body.append(f"<p>The first {limit} of {len(pairs)} pairs.</p>")
    for pair in pairs[:limit]:
        key = pair.ask
        claims = {answer["text"].strip(): answer["claims"] for answer in divided[key]["answers"]}
        verdicts = judged[key]["claims"]
        body.append(
            f"<article><h2>{escape(pair.question)}</h2>{_picture(asks.get(key))}"
            + _side("preferred", pair.chosen, pair.chosen_score, claims[pair.chosen], verdicts)
            + _side("rejected", pair.rejected, pair.rejected_score, claims[pair.rejected], verdicts)
            + "</article>"
        )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f"<!doctype html><html lang=en>{head}<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"


def _side(name: str, text: str, score: float, claims: Iterable[Mapping[str, Any]], verdicts: Mapping[str, Any]) -> str:
    rows = []
    for claim in claims:
        told = verdicts[claim["text"]]
        both = told["p_yes"] + told["p_no"]
        share = f"{told['p_yes'] / both:.0%}" if both else "?"
        kind = "right" if told["verdict"] == "supported" else "wrong"
        rows.append(f"<li class={kind}><b>{escape(told['verdict'])} {share}</b>{escape(claim['text'])}</li>")
    return f"<section><h3>{name}, score {score:g}</h3><p>{escape(text)}</p><ul>{''.join(rows)}</ul></section>"


def _picture(one: Ask | None) -> str:
    """Return the picture as part of the page; words where it is gone."""
    if one is None:
        return "<p>no picture</p>"
    try:
        image = one.picture.open().image
    except HandlensError as error:
        return f"<p>{escape(str(error))}</p>"
    image = ImageOps.contain(image, (WIDEST_PX, WIDEST_PX * 2))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="the picture" width={image.width} height={image.height} src="data:image/webp;base64,{data}">'


def _table(statistics: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_value(value))}</td></tr>" for name, value in statistics.items()
    )
    return f"<table>{rows}</table>"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(one)}" for name, one in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
