"""Coloured shapes on a background: the kind that teaches colour, place, number and absence.

Boundary: draws the things; what is asked about them is in ``scene_talk``.
"""

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Colour, Page
from handlens.data.generate.photo import choose_warp, is_clean, move_boxes, paper_tile, spoil
from handlens.data.generate.scene_talk import SHAPES, relations, talk
from handlens.data.records import Box, Thing

_RGB: dict[str, Colour] = {
    "red": (220, 30, 35), "green": (35, 150, 55), "blue": (35, 75, 215), "yellow": (248, 218, 35),
    "orange": (246, 132, 20), "purple": (132, 42, 170), "black": (22, 22, 24),
    "white": (250, 250, 250), "brown": (122, 72, 34), "pink": (250, 150, 190),
    "gray": (135, 135, 138),
}  # fmt: skip
SIZES = ("small", "large")
_BACKGROUNDS: tuple[Colour, ...] = (
    (250, 250, 250), (240, 236, 224), (222, 232, 244), (226, 240, 224), (200, 202, 206),
    (245, 226, 226), (232, 224, 244), (28, 34, 60), (20, 60, 48), (48, 44, 46), (70, 80, 104),
    (188, 214, 222), (214, 200, 176),
)  # fmt: skip
_FINE = 2
"""Shapes are drawn this many times larger and averaged down, which smooths their edges."""


def draw_scene(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return one to six shapes on a plain, shaded or grainy background; in some, one covers another."""
    tongue = tongue or language("en")
    width, height = (224, 224) if rng.random() < 0.5 else (rng.randint(176, 320), rng.randint(176, 300))
    clean = is_clean(rng, level)
    ground = rng.choice(_BACKGROUNDS)
    colours = [name for name, rgb in _RGB.items() if _distance(rgb, ground) > 105]
    plan = _plan(rng, width, height, colours, level)
    over = _cover(rng, plan, width, height, colours) if rng.random() < 0.15 * level else None
    warp = choose_warp(rng, width, height, (4.0, 4.0, width - 4.0, height - 4.0), 0.0 if clean else level)
    canvas = _background(rng, ground, width, height, level)
    draw = ImageDraw.Draw(canvas)
    things = []
    for shape, colour, size, x, y, radius in plan:
        outlines = _outlines(shape, x, y, radius, rng.uniform(-9, 9) * level)
        if warp is not None:
            outlines = [_move(warp, outline) for outline in outlines]
        shade = _jitter(rng, _RGB[colour], 4 if colour in ("black", "white", "gray") else 12)
        edge = _edge(rng, shade) if rng.random() < 0.2 else None
        _fill(draw, shape, outlines, shade, edge, canvas)
        points = outlines[0]
        box: Box = (
            float(points[:, 0].min()), float(points[:, 1].min()),
            float(points[:, 0].max()), float(points[:, 1].max()),
        )  # fmt: skip
        things.append(Thing(shape=shape, colour=colour, size=size, box=box))
    picture = canvas.reduce(_FINE)
    if not clean:
        picture = spoil(rng, picture, level * 0.9, keep_colours=True)
    return Page(
        kind="scenes", picture=picture, things=tuple(things),
        talk=lambda own: talk(own, tuple(things), width, height, over, tongue),
        facts={
            "clean": clean, "over": [list(over)] if over else [],
            "relations": relations(tuple(things), width, height),
        },
    )  # fmt: skip


def _plan(
    rng: Random, width: int, height: int, colours: list[str], level: float
) -> list[tuple[str, str, str, float, float, float]]:
    """Choose what to draw and where; places that would hide another shape are refused."""
    wanted = rng.choices((1, 2, 3, 4, 5, 6), (14, 22, 22, 18, 13, 11))[0]
    unit = min(width, height)
    plan: list[tuple[str, str, str, float, float, float]] = []
    repeats = rng.random() < 0.45  # scenes worth counting
    for _ in range(wanted):
        shape, colour = rng.choice(SHAPES), rng.choice(colours)
        if plan and repeats and rng.random() < 0.6:
            shape = rng.choice(plan)[0]
        if plan and rng.random() < 0.2:
            colour = rng.choice(plan)[1]
        size = rng.choice(SIZES)
        span = (0.065, 0.095) if size == "small" else (0.135, 0.185)
        radius = unit * rng.uniform(*span)
        for _ in range(30):
            x = rng.uniform(radius + 5, width - radius - 5)
            y = rng.uniform(radius + 5, height - radius - 5)
            near = 0.86 if rng.random() < 0.1 * level else 1.08
            if all(math.hypot(x - p[3], y - p[4]) > near * (radius + p[5]) + 1 for p in plan):
                plan.append((shape, colour, size, x, y, radius))
                break
    return plan


def _cover(
    rng: Random, plan: list[tuple[str, str, str, float, float, float]], width: int, height: int, colours: list[str]
) -> tuple[int, int] | None:
    """Add a thing that hides a part of another; returns the number of the upper and of the lower one."""
    under = rng.randrange(len(plan))
    _, below, _, x, y, radius = plan[under]
    for _ in range(30):
        shape, colour = rng.choice(SHAPES), rng.choice([name for name in colours if name != below])
        size = rng.choice(SIZES)
        own = min(width, height) * rng.uniform(*((0.065, 0.095) if size == "small" else (0.135, 0.185)))
        if shape == "ring" or any((shape, colour) == (p[0], p[1]) for p in plan):
            continue
        angle, reach = rng.uniform(0, 2 * math.pi), (radius + own) * rng.uniform(0.5, 0.66)
        at_x, at_y = x + math.cos(angle) * reach, y + math.sin(angle) * reach
        is_inside = own + 5 < at_x < width - own - 5 and own + 5 < at_y < height - own - 5
        others = [p for i, p in enumerate(plan) if i != under]
        if is_inside and all(math.hypot(at_x - p[3], at_y - p[4]) > 1.05 * (own + p[5]) for p in others):
            plan.append((shape, colour, size, at_x, at_y, own))
            return len(plan) - 1, under
    return None


def _outlines(shape: str, x: float, y: float, r: float, turn_degrees: float) -> list[np.ndarray]:
    """Return the outline of a shape and, for a ring, of its hole."""
    if shape in ("circle", "ring"):
        ring = _round(40)
        outlines = [ring] if shape == "circle" else [ring, ring * 0.55]
    elif shape == "square":
        outlines = [np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.84]
    elif shape == "diamond":
        outlines = [np.array([(0, -1), (0.78, 0), (0, 1), (-0.78, 0)])]
    elif shape == "triangle":
        outlines = [np.array([(0, -0.95), (0.98, 0.78), (-0.98, 0.78)])]
    elif shape == "star":
        at = np.arange(10) * math.pi / 5 - math.pi / 2
        far = np.where(np.arange(10) % 2 == 0, 1.0, 0.43)
        outlines = [np.stack([np.cos(at) * far, np.sin(at) * far], 1)]
    elif shape == "cross":
        a = 0.33
        corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a),
                   (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]  # fmt: skip
        outlines = [np.array(corners) * 0.92]
    else:
        t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
        high = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        outlines = [np.stack([16 * np.sin(t) ** 3, -high - 2.5], 1) / 16]
    angle = math.radians(turn_degrees)
    spin = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return [outline @ spin * r + (x, y) for outline in outlines]


def _round(count: int) -> np.ndarray:
    at = np.arange(count) * 2 * math.pi / count
    return np.stack([np.cos(at), np.sin(at)], 1)


def _move(warp: np.ndarray, points: np.ndarray) -> np.ndarray:
    return move_boxes(warp, np.concatenate([points, points], 1))[:, :2]


def _fill(
    draw: ImageDraw.ImageDraw, shape: str, outlines: list[np.ndarray],
    shade: Colour, edge: Colour | None, canvas: Image.Image,
) -> None:  # fmt: skip
    fine = [(outline * _FINE).ravel().tolist() for outline in outlines]
    if shape == "ring":
        x, y = (max(0, int(min(fine[0][axis::2])) - 1) for axis in (0, 1))
        wide, high = (int(max(fine[0][axis::2])) + 2 - start for axis, start in ((0, x), (1, y)))
        hole = Image.new("L", (max(1, wide), max(1, high)))
        pen = ImageDraw.Draw(hole)
        for outline, ink in zip(fine, (255, 0), strict=True):
            pen.polygon([value - (x, y)[i % 2] for i, value in enumerate(outline)], ink)
        draw.bitmap((x, y), hole, shade)
        return
    draw.polygon(fine[0], shade, edge, width=_FINE * 2 if edge else 1)


def _background(rng: Random, ground: Colour, width: int, height: int, level: float) -> Image.Image:
    """Return the background at drawing size: plain, shaded or grainy."""
    roll = rng.random()
    size = (width * _FINE, height * _FINE)
    if roll > 0.6 * level:
        return Image.new("RGB", size, _jitter(rng, ground, 5))
    base = np.array(ground, np.float32)
    if roll < 0.3 * level:
        other = np.array(_jitter(rng, ground, 26), np.float32)
        along = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
        lean = np.float32(rng.random())
        ramp = along * lean + across * (1 - lean)
        planes = [start + (end - start) * ramp for start, end in zip(base, other, strict=True)]
    else:
        y, x = rng.randrange(600), rng.randrange(600)
        grain = paper_tile()[y : y + height, x : x + width] * np.float32(rng.uniform(3, 10))
        planes = [start + grain for start in base]
    small = Image.merge("RGB", [Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8)) for plane in planes])
    return small.resize(size, Image.Resampling.NEAREST)


def _jitter(rng: Random, colour: Colour, spread: int) -> Colour:
    red, green, blue = [min(255, max(0, v + rng.randint(-spread, spread))) for v in colour]
    return red, green, blue


def _edge(rng: Random, shade: Colour) -> Colour:
    keep = rng.uniform(0.55, 0.8)
    red, green, blue = (round(v * keep) for v in shade)
    return red, green, blue


def _distance(one: Colour, two: Colour) -> float:
    return math.dist(one, two)
