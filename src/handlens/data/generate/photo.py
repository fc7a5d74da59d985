"""The camera: bends, turns, shades, blurs and roughens a flat page as a phone would.

Boundary: pixels and boxes only. ``level`` 0 is a clean scan, 1 a careless photo.
"""

import io
from functools import lru_cache
from random import Random

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from handlens.data.records import Box, Glyph, Line

Warp = np.ndarray
"""A 3x3 homography from page px to picture px."""

_TILE_PX = 640


def is_clean(rng: Random, level: float) -> bool:
    """Decide whether a picture is left as it is: a quarter of them even at level 1."""
    return rng.random() < 1.0 - 0.75 * level


def choose_warp(rng: Random, width_px: int, height_px: int, content: Box, level: float) -> Warp | None:
    """Pick a slight turn and perspective that keeps ``content`` inside the picture.

    Returns None where the page is left flat (half of the pages, all at level 0).
    """
    if rng.random() > 0.5 * level:
        return None
    angle = np.radians(rng.uniform(-4, 4) * level)
    cos, sin = np.cos(angle), np.sin(angle)
    lean = 0.06 * level
    middle = np.array([[1, 0, -width_px / 2], [0, 1, -height_px / 2], [0, 0, 1.0]])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    tilt = np.eye(3)
    tilt[2, 0] = rng.uniform(-lean, lean) / width_px
    tilt[2, 1] = rng.uniform(-lean, lean) / height_px
    tilt[0, 1] = rng.uniform(-lean, lean) * 0.5
    warp = np.linalg.inv(middle) @ tilt @ turn @ middle
    return fit_inside(warp, content, width_px, height_px)


def fit_inside(warp: Warp, content: Box, width_px: int, height_px: int) -> Warp:
    """Shrink and move the result until the warped content lies inside the picture."""
    x0, y0, x1, y1 = move_boxes(warp, np.array([content]))[0]
    margin = 1.0
    scale = min(1.0, (width_px - 2 * margin) / (x1 - x0), (height_px - 2 * margin) / (y1 - y0))
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    half_w, half_h = (x1 - x0) / 2 * scale, (y1 - y0) / 2 * scale
    to_x = min(max(cx, half_w + margin), width_px - half_w - margin)
    to_y = min(max(cy, half_h + margin), height_px - half_h - margin)
    move = np.array([[scale, 0, to_x - scale * cx], [0, scale, to_y - scale * cy], [0, 0, 1.0]])
    return move @ warp


def move_boxes(warp: Warp, boxes: Float[np.ndarray, "boxes 4"]) -> Float[np.ndarray, "boxes 4"]:
    """Return the upright boxes around the four warped corners of each box."""
    xs, ys = boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]
    flat = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    x, y, w = warp @ flat
    x, y = (x / w).reshape(-1, 4), (y / w).reshape(-1, 4)
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)


def move_lines(warp: Warp | None, lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """Carry lines and their glyphs through the camera."""
    if warp is None or not lines:
        return lines
    boxes = [box for line in lines for box in (line.box, *(g.box for g in line.glyphs))]
    moved = iter(move_boxes(warp, np.array(boxes, dtype=np.float64)).tolist())
    out = []
    for line in lines:
        box = tuple(next(moved))
        glyphs = tuple(Glyph(char=g.char, box=tuple(next(moved))) for g in line.glyphs)
        out.append(Line(text=line.text, box=box, glyphs=glyphs))
    return tuple(out)


def warp_image(image: Image.Image, warp: Warp, size: tuple[int, int], fill: int | tuple[int, ...] = 0) -> Image.Image:
    """Return the image seen through the warp; pixels from outside the page are ``fill``."""
    back = np.linalg.inv(warp)
    back = (back / back[2, 2]).ravel()[:8].tolist()
    return image.transform(size, Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR, fillcolor=fill)


def paint(
    mask: UInt8[np.ndarray, "height width"],
    ink: tuple[int, int, int],
    paper: tuple[int, int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """Colour a mask: 0 becomes paper, 255 becomes ink."""
    steps = np.arange(256, dtype=np.float32)[:, None] / 255
    table = (1 - steps) * np.array(paper, np.float32) + steps * np.array(ink, np.float32)
    return np.take(np.rint(table).astype(np.uint8), mask, axis=0)


def spoil(
    rng: Random,
    pixels: UInt8[np.ndarray, "height width 3"] | Image.Image,
    level: float,
    *,
    keep_colours: bool = False,
) -> Image.Image:
    """Return the picture after light, paper and lens: fold, shade, dusk, texture, blur, noise, JPEG.

    ``keep_colours`` leaves out what would make a red thing gray: deep shade, dusk and low contrast.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    width, height = image.size
    change = None
    if rng.random() < 0.25 * level:
        image = pixels = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.4 + 0.8 * level)))
    scale: np.ndarray | None = None
    if rng.random() < 0.3 * level:
        scale = _shade(rng, width, height, 0.25 if keep_colours else 0.5 * level)
    if rng.random() < 0.3 * level:
        change = _window(rng, paper_tile(), width, height) * np.float32(rng.uniform(3, 10) * level)
    if rng.random() < 0.4 * level:
        noise = _window(rng, noise_tile(), width, height)
        noise = noise * np.float32(level * 12 * rng.random() ** 1.5 + 1)
        change = noise if change is None else change + noise
    roll = rng.random()
    if roll < 0.07 * level:
        crease = _fold(rng, width, height, 0.3 * level)
        scale = crease if scale is None else scale * crease
    elif roll < 0.13 * level and not keep_colours:
        dusk = np.full((height, width), 1 - level * rng.uniform(0.35, 0.65), np.float32)
        scale = dusk if scale is None else scale * dusk
        grain = _window(rng, noise_tile(), width, height) * np.float32(rng.uniform(3, 9))
        change = grain if change is None else change + grain
    squeeze = rng.random() < 0.2 * level and not keep_colours
    if scale is not None or change is not None or squeeze:
        values = np.asarray(pixels).astype(np.float32)
        if squeeze:
            keep = np.float32(rng.uniform(0.45, 0.85))
            values = values * keep + np.float32(rng.uniform(0, 255) * (1 - keep))
        if scale is not None:
            _by_channel(np.multiply, values, scale)
        if change is not None:
            _by_channel(np.add, values, change)
        image = Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))
    if rng.random() < 0.12 * level:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(35, 90))
        image = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    return image


def _by_channel(work: np.ufunc, values: np.ndarray, plane: np.ndarray) -> None:
    """Change every channel by the same plane; broadcasting over a last axis of 3 takes twice as long."""
    for channel in range(values.shape[2]):
        work(values[..., channel], plane, out=values[..., channel])


def _shade(rng: Random, width: int, height: int, most: float) -> np.ndarray:
    across = np.linspace(rng.uniform(-1, 1), rng.uniform(-1, 1), width, dtype=np.float32)
    down = np.linspace(rng.uniform(-1, 1), rng.uniform(-1, 1), height, dtype=np.float32)
    slope = across[None, :] + down[:, None]
    if rng.random() < 0.3:  # the edge of a hand's shadow
        slope = np.tanh(slope * np.float32(rng.uniform(3, 12)))
    low, high = float(slope.min()), float(slope.max())
    depth = np.float32(rng.uniform(0.2, 1.0) * most)
    return 1 - depth * (high - slope) / np.float32(max(high - low, 1e-3))


def _fold(rng: Random, width: int, height: int, depth: float) -> np.ndarray:
    """Return the light on paper that was folded once or twice: each part leans another way."""
    light = np.ones((height, width), np.float32)
    for _ in range(rng.choice((1, 1, 2))):
        is_upright = rng.random() < 0.5
        length = width if is_upright else height
        at = rng.uniform(0.2, 0.8) * length
        away = np.arange(length, dtype=np.float32) - np.float32(at)
        near = np.exp(-np.abs(away) / np.float32(max(2.0, length * rng.uniform(0.02, 0.12))))
        side = np.where(away < 0, rng.uniform(-1, 1), rng.uniform(-1, 1)).astype(np.float32)
        crease = 1 - np.float32(depth) * (0.35 * (side + 1) / 2 + 0.65 * near * (away < 0)) + 0.1 * near * (away >= 0)
        light *= crease[None, :] if is_upright else crease[:, None]
    return light


def _window(rng: Random, tile: np.ndarray, width: int, height: int) -> np.ndarray:
    y, x = rng.randrange(_TILE_PX), rng.randrange(_TILE_PX)
    if x + width > tile.shape[1] or y + height > tile.shape[0]:  # a very long picture: the tile has no seam
        tile = np.tile(tile, (1 + height // _TILE_PX, 1 + width // _TILE_PX))
    return tile[y : y + height, x : x + width]


def _torus(tile: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.tile(tile, (2, 2)))


@lru_cache
def noise_tile() -> Float[np.ndarray, "double double"]:
    """White noise of unit strength, twice as large as any picture so that a window always fits."""
    return _torus(np.random.default_rng(1).standard_normal((_TILE_PX, _TILE_PX), np.float32))


@lru_cache
def grain_tile() -> UInt8[np.ndarray, "double double"]:
    """The paper tile in 256 steps from -4 to 4 standard deviations."""
    return np.clip(np.rint((paper_tile() + 4) * (255 / 8)), 0, 255).astype(np.uint8)


@lru_cache
def paper_tile() -> Float[np.ndarray, "double double"]:
    """Soft blotches and fibres of unit strength that repeat without a seam."""
    rng = np.random.default_rng(2)
    spectrum = np.fft.rfft2(rng.standard_normal((_TILE_PX, _TILE_PX)))
    fy, fx = np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX)[None, :]
    spectrum *= 1 / (0.01 + np.hypot(fy, fx)) ** 1.1
    spectrum[0, 0] = 0
    tile = np.fft.irfft2(spectrum, s=(_TILE_PX, _TILE_PX))
    return _torus((tile / tile.std()).astype(np.float32))
