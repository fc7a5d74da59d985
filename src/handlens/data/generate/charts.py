"""Charts with their numbers: bars, lines, pies, dots; every value can be read off the picture.

Boundary: draws one page and asks about it; canvas and camera are in ``board``.
"""

import math
from random import Random

from handlens.data.generate.board import BLACK, Board, Overfull, faces, fit, tint
from handlens.data.generate.ink import Face, text_width
from handlens.data.generate.language import Language, language
from handlens.data.generate.markup import to_html, to_markdown
from handlens.data.generate.page import Colour, Page, Px
from handlens.data.records import Box, Turn

LAYOUTS = ("columns", "bars", "line", "pie")
HELDOUT_LAYOUTS = ("dots",)
_INKS: tuple[Colour, ...] = (
    (31, 90, 160), (200, 70, 40), (60, 140, 70), (150, 80, 160), (220, 150, 30), (40, 150, 160), (120, 120, 126),
)  # fmt: skip


def draw_chart(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a chart of 3 to 7 values; values stand beside their marks or on a line of the scale."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    count = rng.randint(3, 5 if layout == "pie" else 7)
    pool = [w for w in tongue.pool(rng.choice(("food", "product", "city", "first")), split) if 2 <= len(w) <= 9]
    if len(pool) < 3:
        pool = [w for w in tongue.pool("all", split) if 2 <= len(w) <= 9]
    names = [tongue.first_upper(name) for name in rng.sample(pool, min(count, len(pool)))]
    step = rng.choice((5, 10, 20, 50, 100))
    values = rng.sample(range(1, 11), len(names)) if rng.random() < 0.7 else [rng.randint(1, 10) for _ in names]
    values = [value * step for value in values]
    is_printed = layout == "pie" or rng.random() < 0.6
    if is_printed and layout != "pie":
        values = [value + rng.randint(-step // 3, step // 3) for value in values]
    body, _, title = faces(rng, tongue, split, rng.randint(10, 13))
    made = tongue.pool("thing", split)
    heading = f"{tongue.first_upper(rng.choice(made))} {rng.randint(1990, 2034)}"
    paper = tint(rng, 236, 255, 8)
    board = Board(rng.randint(280, 420), rng.randint(220, 320), paper, is_rtl=False)
    board.text(title, heading, board.width / 2, 8 + title.ascent, anchor="middle", most_px=board.width - 20)
    top = 14 + title.height
    inks = rng.sample(_INKS, len(names)) if layout == "pie" or rng.random() < 0.4 else [rng.choice(_INKS)] * len(names)
    draw = {"columns": _columns, "line": _line, "dots": _dots, "bars": _bars, "pie": _pie}[layout]
    marks = draw(board, body, names, values, step, inks, top, is_printed)
    shot = board.shoot(rng, level, boxes=marks)
    header = (tongue.first_upper(tongue.word("name")), tongue.first_upper(tongue.word("value")))
    table = (header, *((name, str(value)) for name, value in zip(names, values, strict=True)))
    return Page(
        kind="charts", picture=shot.picture, lines=shot.lines, table=table,
        talk=lambda own: _talk(own, tongue, heading, names, values, table),
        facts={
            "layout": layout, "font": body.font.file, "clean": shot.clean, "title": heading,
            "series": [[name, value] for name, value in zip(names, values, strict=True)],
            "marks": [[round(value, 1) for value in box] for box in shot.boxes],
            "markdown": to_markdown(table), "html": to_html(table),
        },
    )  # fmt: skip


def _scale(
    board: Board, face: Face, values: list[int], step: int, top: Px, bottom: Px, right: Px
) -> tuple[Px, Px, int]:
    """Draw the scale with a line for every step; returns left edge, px per unit, highest mark."""
    high = step * math.ceil(max(values) / step + 0.2)
    wide = text_width(face, str(high)) + 10
    unit = (bottom - top) / high
    stride = step if unit * step >= face.height * 0.7 else step * 2
    for value in range(0, high + 1, step):
        y = bottom - value * unit
        board.rule(wide, y, right, (205, 205, 212) if value else (60, 60, 66))
        if value % stride == 0:
            board.text(face, str(value), wide - 4, y + face.ascent * 0.4, (70, 70, 76), anchor="right")
    return wide, unit, high


def _upright(
    board: Board, face: Face, names: list[str], values: list[int], step: int, top: Px
) -> tuple[list[float], list[float], Px, Px]:  # fmt: skip
    """Draw the scale and the names below; returns middle and height of each value, bottom and width of a place."""
    bottom, right = board.height - face.height - 10, board.width - 10
    left, unit, _ = _scale(board, face, values, step, top + face.height, bottom, right)
    place = (right - left) / len(names)
    middles = [left + place * (i + 0.5) for i in range(len(names))]
    for middle, name in zip(middles, names, strict=True):
        board.text(face, name, middle, bottom + face.ascent + 4, anchor="middle", most_px=place - 4)
    return middles, [bottom - value * unit for value in values], bottom, place


def _label(board: Board, face: Face, value: int, x: Px, y: Px, is_printed: bool) -> None:
    if is_printed:
        board.text(face, str(value), x, y, BLACK, anchor="middle")


def _columns(
    board: Board,
    face: Face,
    names: list[str],
    values: list[int],
    step: int,
    inks: list[Colour],
    top: Px,
    is_printed: bool,
) -> list[Box]:
    middles, heights, bottom, place = _upright(board, face, names, values, step, top)
    boxes: list[Box] = []
    for middle, y, value, ink in zip(middles, heights, values, inks, strict=True):
        boxes.append(board.box((middle - place * 0.3, min(y, bottom - 1), middle + place * 0.3, bottom), ink))
        _label(board, face, value, middle, y - 3, is_printed)
    return boxes


def _line(
    board: Board,
    face: Face,
    names: list[str],
    values: list[int],
    step: int,
    inks: list[Colour],
    top: Px,
    is_printed: bool,
) -> list[Box]:
    middles, heights, _, _ = _upright(board, face, names, values, step, top)
    board.pen.line([point for pair in zip(middles, heights, strict=True) for point in pair], inks[0], 3, "curve")
    return _points(board, face, values, middles, heights, [inks[0]] * len(values), is_printed, 3)


def _dots(
    board: Board,
    face: Face,
    names: list[str],
    values: list[int],
    step: int,
    inks: list[Colour],
    top: Px,
    is_printed: bool,
) -> list[Box]:
    middles, heights, bottom, _ = _upright(board, face, names, values, step, top)
    for middle, y in zip(middles, heights, strict=True):
        board.pen.line((middle, y, middle, bottom), (120, 120, 126), 1)
    return _points(board, face, values, middles, heights, inks, is_printed, 6)


def _points(
    board: Board,
    face: Face,
    values: list[int],
    xs: list[float],
    ys: list[float],
    inks: list[Colour],
    is_printed: bool,
    radius: int,
) -> list[Box]:
    boxes: list[Box] = []
    for x, y, value, ink in zip(xs, ys, values, inks, strict=True):
        boxes.append((x - radius, y - radius, x + radius, y + radius))
        board.pen.ellipse(boxes[-1], ink)
        _label(board, face, value, x, y - radius - 3, is_printed)
    return boxes


def _bars(
    board: Board,
    face: Face,
    names: list[str],
    values: list[int],
    step: int,
    inks: list[Colour],
    top: Px,
    is_printed: bool,
) -> list[Box]:
    """Draw lying bars; without numbers beside them every step has a line."""
    left = max(text_width(face, name) for name in names) + 16
    if left > board.width * 0.5:
        raise Overfull(max(names, key=len))
    right, bottom = board.width - 40, board.height - face.height - 8
    high = step * math.ceil(max(values) / step)
    row = (bottom - top) / len(names)
    stride = step * math.ceil(high / step / 4)
    for value in range(0, high + 1, step):
        x = left + (right - left) * value / high
        board.pen.line((x, top, x, bottom), (205, 205, 212) if value else (60, 60, 66))
        if value % stride == 0:
            board.text(face, str(value), x, bottom + face.ascent + 2, (70, 70, 76), anchor="middle")
    boxes: list[Box] = []
    for i, (name, value, ink) in enumerate(zip(names, values, inks, strict=True)):
        y = top + row * (i + 0.5)
        end = left + (right - left) * value / high
        boxes.append(board.box((left, y - row * 0.3, max(end, left + 1), y + row * 0.3), ink))
        board.text(face, name, left - 6, y + face.ascent * 0.4, anchor="right")
        if is_printed:
            board.text(face, str(value), end + 4, y + face.ascent * 0.4)
    return boxes


def _pie(
    board: Board,
    face: Face,
    names: list[str],
    values: list[int],
    step: int,
    inks: list[Colour],
    top: Px,
    is_printed: bool,
) -> list[Box]:
    """Draw a pie with a legend of names and values at its side."""
    radius = min((board.height - top - 12) / 2, board.width * 0.24)
    x, y = 12 + radius, (top + board.height) / 2
    where = (x - radius, y - radius, x + radius, y + radius)
    start, total = -90.0, sum(values)
    for value, ink in zip(values, inks, strict=True):
        end = start + 360 * value / total
        board.pen.pieslice(where, start, end, ink, board.paper, 2)
        start = end
    row = min(face.height * 1.6, (board.height - top) / len(names))
    at = y - row * (len(names) - 1) / 2
    left = x + radius + 14
    boxes: list[Box] = []
    for name, value, ink in zip(names, values, inks, strict=True):
        boxes.append(board.box((left, at - 5, left + 10, at + 5), ink))
        text = f"{name}: {value}"
        board.text(fit(face, text, board.width - left - 20), text, left + 16, at + face.ascent * 0.4)
        at += row
    return boxes


def _talk(
    rng: Random, tongue: Language, heading: str, names: list[str], values: list[int], table: tuple[tuple[str, ...], ...]
) -> tuple[Turn, ...]:
    """Return two to four turns; the largest is asked for only where one value is."""
    one = rng.randrange(len(names))
    turns = [
        tongue.ask(rng, "charts.value", "value", str(values[one]), name=names[one]),
        tongue.ask(rng, "charts.title", "title", heading),
        tongue.ask(rng, "charts.count", "bars", str(len(names))),
        tongue.ask(rng, "charts.markdown", "markdown", to_markdown(table)),
    ]
    for key, best in (("largest", max(values)), ("smallest", min(values))):
        if values.count(best) == 1:
            turns.append(tongue.ask(rng, f"charts.{key}", key, names[values.index(best)]))
    is_so = rng.random() < 0.5
    first, second = rng.sample(range(len(names)), 2)
    if (values[first] > values[second]) != is_so:
        first, second = second, first
    if values[first] != values[second]:
        turns.append(tongue.ask(rng, "charts.larger", "larger", tongue.yes(is_so), one=names[first], two=names[second]))
    return tuple(rng.sample(turns, rng.randint(2, 4)))
