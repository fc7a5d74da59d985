"""Estimate how high the letters on a picture are, so that text which resizing makes unreadable can be named.

Boundary: numpy and Pillow; pixels in, heights out. It finds marks that stand in a row like letters and reads none.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from PIL import Image, ImageFilter

MAX_PIXELS = 16_000_000
"""A larger picture is measured at this size and its heights are scaled back."""
MAX_RUNS = 600_000
"""More pieces of ink than this are a texture, not text."""
MIN_CONTRAST = 24
"""Levels of gray between ink and the mean around it."""
LETTER_PX = (3, 300)
MIN_NEIGHBOURS = 2


def letter_heights(image: Image.Image) -> Float64[np.ndarray, "count"]:
    """Return the heights in px of marks that stand in a row with others of like height.

    Dots and solid bars are left out. Letters that touch count as one mark of their height.
    """
    gray = image.convert("L")
    scale = max(1.0, (gray.width * gray.height / MAX_PIXELS) ** 0.5)
    if scale > 1:
        gray = gray.resize((max(1, round(gray.width / scale)), max(1, round(gray.height / scale))))
    radius = max(24, min(gray.size) // 20)
    around = np.asarray(gray.filter(ImageFilter.BoxBlur(radius)), dtype=np.int16)
    difference = around - np.asarray(gray, dtype=np.int16)
    dark, light = (_rows_of_marks(ink) for ink in (difference > MIN_CONTRAST, -difference > MIN_CONTRAST))
    return scale * (dark if len(dark) >= len(light) else light)


def _rows_of_marks(ink: Bool[np.ndarray, "height width"]) -> Float64[np.ndarray, "count"]:
    left, top, right, bottom, area = _marks(ink)
    height, width = bottom - top, right - left
    fill = area / np.maximum(1, height * width)
    good = (height >= LETTER_PX[0]) & (height <= LETTER_PX[1]) & (width <= 6 * height) & (fill > 0.1)
    good &= ~((fill > 0.85) & (width < 1.6 * height))
    return height[_in_a_row(left, top, right, bottom, good)].astype(np.float64)


def _marks(ink: Bool[np.ndarray, "height width"]) -> tuple[Int64[np.ndarray, "count"], ...]:
    """Return left, top, right, bottom and area of every connected piece of ink; right and bottom are outside."""
    edges = np.diff(np.pad(ink, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    if not 0 < len(rows) <= MAX_RUNS:
        return tuple(np.zeros(0, dtype=np.int64) for _ in range(5))
    labels = _join(rows, starts, ends, ink.shape[1] + 2)
    _, labels = np.unique(labels, return_inverse=True)
    count = int(labels.max()) + 1
    left, top = np.full(count, ink.shape[1]), np.full(count, ink.shape[0])
    right, bottom = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    np.minimum.at(left, labels, starts)
    np.maximum.at(right, labels, ends)
    np.minimum.at(top, labels, rows)
    np.maximum.at(bottom, labels, rows + 1)
    area = np.bincount(labels, weights=ends - starts, minlength=count).astype(np.int64)
    return left, top, right, bottom, area


def _join(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, stride: int) -> Int64[np.ndarray, "count"]:
    """Return one label per run of ink; runs that touch in neighbouring rows, also by a corner, share it."""
    below = (rows + 1) * stride
    first = np.searchsorted(rows * stride + ends, below + starts, side="left")
    last = np.searchsorted(rows * stride + starts, below + ends, side="right")
    counts = np.maximum(0, last - first)
    upper = np.repeat(np.arange(len(rows)), counts)
    lower = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    labels = np.arange(len(rows))
    while True:
        least = np.minimum(labels[upper], labels[lower])
        before = labels.copy()
        np.minimum.at(labels, before[upper], least)
        np.minimum.at(labels, before[lower], least)
        labels = labels[labels]
        if np.array_equal(labels, before):
            return labels


def _in_a_row(
    left: np.ndarray, top: np.ndarray, right: np.ndarray, bottom: np.ndarray, good: np.ndarray
) -> Int64[np.ndarray, "count"]:
    """Return the good marks with at least ``MIN_NEIGHBOURS`` good marks of like height close beside them."""
    order = np.flatnonzero(good)
    centre = (top + bottom)[order]
    order, centre = order[np.argsort(centre, kind="stable")], np.sort(centre)
    height = (bottom - top)[order]
    first = np.searchsorted(centre, centre - height, side="left")  # centres are doubled: half a height each way
    last = np.searchsorted(centre, centre + height, side="right")
    found = []
    for place, (begin, end) in enumerate(zip(first, last, strict=True)):
        near, tall = order[begin:end], height[place]
        gap = np.maximum(left[near] - right[order[place]], left[order[place]] - right[near])
        like = height[begin:end] / tall
        if np.count_nonzero((gap < 1.2 * tall) & (like > 0.6) & (like < 1.7)) > MIN_NEIGHBOURS:  # itself is one
            found.append(order[place])
    return np.asarray(found, dtype=np.int64)
