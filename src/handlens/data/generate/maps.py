"""Maps with labelled places: roads, a river, a lake, parks, and which place lies where.

Boundary: draws one map and asks about it; canvas and camera are in ``board``.
"""

import math
from random import Random

from handlens.data.generate.board import BLACK, Board, Overfull, faces, tint
from handlens.data.generate.ink import Face, text_width
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Colour, Page
from handlens.data.records import Box, Turn

LAYOUTS = ("roads", "coast", "plain")
HELDOUT_LAYOUTS = ("blocks",)
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
_WATER: Colour = (166, 204, 232)


def draw_map(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a map of 4 to 8 labelled places; no label touches another."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    width, height = rng.randint(300, 420), rng.randint(260, 380)
    body, _, _ = faces(rng, tongue, split, rng.randint(11, 14))
    board = Board(width, height, tint(rng, 226, 248, 10), is_rtl=False)
    _land(rng, board, layout)
    pool = dict.fromkeys((*tongue.pool("city", split), *tongue.pool("place", split)))
    names = [tongue.first_upper(name) for name in pool if len(name) <= 12]
    names = rng.sample(list(dict.fromkeys(names)), min(len(set(names)), rng.randint(4, 8)))
    pins, marks = _pins(rng, board, body, names)
    shot = board.shoot(rng, level, boxes=marks)
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in shot.boxes]
    return Page(
        kind="maps", picture=shot.picture, lines=shot.lines,
        talk=lambda own: _talk(own, tongue, pins, middles, shot.picture.size),
        facts={
            "layout": layout, "font": body.font.file, "clean": shot.clean,
            "places": [{"name": name, "box": [round(v, 1) for v in box]}
                       for name, box in zip(pins, shot.boxes, strict=True)],
        },
    )  # fmt: skip


def _land(rng: Random, board: Board, layout: str) -> None:
    """Draw what lies under the labels."""
    width, height = board.width, board.height
    for _ in range(rng.randint(1, 3)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(30, 70)
        board.pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), (200, 226, 190))
    if layout == "blocks":
        wide, high = rng.randint(46, 70), rng.randint(40, 60)
        for x in range(0, width, wide):
            for y in range(0, height, high):
                board.box((x + 5, y + 5, x + wide - 5, y + high - 5), tint(rng, 206, 228, 10))
        return
    if layout == "coast":
        edge = [(0.0, 0.0), *((width * rng.uniform(0.12, 0.3), height * i / 6) for i in range(7)), (0.0, float(height))]
        board.pen.polygon(edge, _WATER)
    else:
        points = [(width * i / 6, height * rng.uniform(0.3, 0.7)) for i in range(7)]
        board.pen.line(points, _WATER, rng.randint(6, 12), "curve")
    for _ in range(rng.randint(2, 5) if layout != "plain" else 0):
        start, end = (rng.uniform(0, width), 0.0), (rng.uniform(0, width), float(height))
        if rng.random() < 0.5:
            start, end = (0.0, rng.uniform(0, height)), (float(width), rng.uniform(0, height))
        board.pen.line((start, end), (188, 188, 192), 7)
        board.pen.line((start, end), (255, 252, 236), 5)


def _pins(rng: Random, board: Board, face: Face, names: list[str]) -> tuple[list[str], list[Box]]:
    """Place dots with labels so that none touches another; what finds no place is left out."""
    taken: list[Box] = []
    put: list[str] = []
    marks: list[Box] = []
    ink = rng.choice(((190, 40, 40), (40, 70, 160), (30, 30, 34)))
    for name in names:
        wide = text_width(face, name)
        for _ in range(40):
            x, y = rng.uniform(10, board.width - wide - 26), rng.uniform(face.height, board.height - face.height)
            box = (x - 8, y - face.height * 0.8, x + wide + 18, y + face.height * 0.8)
            if board.width - wide > 40 and all(
                b[0] > box[2] or b[2] < box[0] or b[1] > box[3] or b[3] < box[1] for b in taken
            ):
                board.pen.ellipse((x - 4, y - 4, x + 4, y + 4), ink, (255, 255, 255))
                board.text(face, name, x + 8, y + face.ascent * 0.4, BLACK)
                taken.append(box)
                put.append(name)
                marks.append((x - 4, y - 4, x + 4, y + 4))
                break
    if len(put) < 3:
        raise Overfull(" ".join(names))
    return put, marks


def _talk(
    rng: Random, tongue: Language, names: list[str], middles: list[tuple[float, float]], size: tuple[int, int]
) -> tuple[Turn, ...]:
    """Return one to three turns; only what is beyond doubt is asked."""
    turns = []
    is_so = rng.random() < 0.5
    one, two = rng.sample(range(len(names)), 2)
    if (middles[one][1] < middles[two][1]) != is_so:
        one, two = two, one
    if abs(middles[one][1] - middles[two][1]) > 0.08 * size[1]:
        turns.append(tongue.ask(rng, "maps.above", "north", tongue.yes(is_so), one=names[one], two=names[two]))
    for i in rng.sample(range(len(names)), len(names)):
        far = sorted((math.dist(middles[i], other), j) for j, other in enumerate(middles) if j != i)
        if far[0][0] * 1.25 < far[1][0]:
            turns.append(tongue.ask(rng, "maps.nearest", "nearest", names[far[0][1]], the=names[i]))
            break
    places: list[str] = tongue.facts.get("places", [])
    for i in rng.sample(range(len(names)), len(names)) if places else ():
        shares = (middles[i][0] / size[0], middles[i][1] / size[1])
        if all(abs(share - border) > 0.05 for share in shares for border in (1 / 3, 2 / 3)):
            cell = min(2, int(shares[1] * 3)) * 3 + min(2, int(shares[0] * 3))
            turns.append(tongue.ask(rng, "maps.where", "where", places[cell], the=names[i]))
            break
    listed = sorted(range(len(names)), key=lambda i: middles[i][1])
    turns.append(tongue.ask(rng, "maps.read", "read", "\n".join(names[i] for i in listed)))
    return tuple(rng.sample(turns, min(len(turns), rng.randint(1, 3))))
