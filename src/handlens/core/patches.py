"""Turn slices into normalised patches, position ids and key positions.

Boundary: numpy only; training, the torch model and the device all call these functions.
"""

import functools
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

PositionRule = Literal["bucketised", "floor", "row", "resized"]
"""How a patch finds its row of the position table: by the released bucket rule (2.6 to 4.5), by ``side * i // n``
(4.6), along the first row of the table only (2.5), or one by one in a table resized to the slice (1.0, 2.0)."""


def normalise(image: Image.Image) -> Float32[np.ndarray, "3 height width"]:
    """Return RGB pixels scaled to [-1, 1] (mean and deviation 0.5), bit-equal to the released processors."""
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    return ((pixels - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)


def to_patches(
    pixels: Float32[np.ndarray, "3 height width"] | UInt8[np.ndarray, "3 height width"], patch_px: int = 14
) -> Float32[np.ndarray, "patches dim"] | UInt8[np.ndarray, "patches dim"]:
    """Return row-major patches, each flattened as (channel, row, column); numbers keep their type."""
    channels, height, width = pixels.shape
    rows, columns = height // patch_px, width // patch_px
    grid = pixels.reshape(channels, rows, patch_px, columns, patch_px)
    return np.ascontiguousarray(grid.transpose(1, 3, 0, 2, 4)).reshape(rows * columns, -1)


def to_strip(pixels: Float32[np.ndarray, "3 height width"], patch_px: int = 14) -> Float32[np.ndarray, "3 patch strip"]:
    """Return the patches side by side, [3, patch, patches * patch], the layout of the official processors."""
    channels, height, width = pixels.shape
    rows, columns = height // patch_px, width // patch_px
    grid = pixels.reshape(channels, rows, patch_px, columns, patch_px)
    return np.ascontiguousarray(grid.transpose(0, 2, 1, 3, 4)).reshape(channels, patch_px, -1)


@functools.lru_cache(maxsize=512)
def _axis_buckets(count: int, table_side: int, rule: PositionRule) -> Int64[np.ndarray, "count"]:
    if rule == "floor":
        return np.arange(count, dtype=np.int64) * table_side // count
    # The official rule is torch.arange + torch.bucketize in float32. arange fills eight lanes at a time: the first
    # of the eight is rounded to float32, then lane * step is added to it. 25, 49, 50, 55, 58 ... depend on this.
    boundaries = ((np.arange(table_side - 1) + 1) / table_side).astype(np.float32)
    step = np.float64(np.float32(1) / np.float32(count))
    index = np.arange(count)
    coords = ((index // 8 * 8 * step).astype(np.float32) + (index % 8) * step).astype(np.float32)
    return np.searchsorted(boundaries, coords, side="right").astype(np.int64)


def position_ids(
    rows: int,
    columns: int,
    *,
    table_side: int = 70,
    rule: PositionRule = "bucketised",
    num_padded: int | None = None,
) -> Int64[np.ndarray, "patches"]:
    """Return the row of the position table for every patch, row-major.

    ``num_padded`` is the patch count of the longest slice of the prompt; the rule ``row`` depends on it.

    >>> position_ids(2, 2, rule="row").tolist(), position_ids(2, 2, rule="row", num_padded=8).tolist()
    ([0, 17, 35, 52], [0, 8, 17, 26])
    """
    if rule == "resized":
        return np.arange(rows * columns, dtype=np.int64)
    if rule == "row":
        # 2.5 reads a slice as one row of patches, as long as the longest slice beside it.
        return _axis_buckets(num_padded or rows * columns, table_side, "bucketised")[: rows * columns]
    vertical = _axis_buckets(rows, table_side, rule)
    horizontal = _axis_buckets(columns, table_side, rule)
    return (vertical[:, None] * table_side + horizontal[None, :]).reshape(-1)


@functools.lru_cache(maxsize=256)
def key_positions(rows: int, columns: int, dim: int) -> Float32[np.ndarray, "patches dim"]:
    """Return the 2-D sin-cos code of integer patch coordinates: sin x, cos x, sin y, cos y, a quarter each.

    Source: released MiniCPM-V resampler (column coordinate first).
    """
    omega = np.arange(dim // 4, dtype=np.float32) / np.float32(dim / 4.0)
    omega = (1.0 / 10000**omega).astype(np.float32)
    x = np.arange(columns, dtype=np.float32)[:, None] * omega
    y = np.arange(rows, dtype=np.float32)[:, None] * omega
    horizontal = np.concatenate([np.sin(x), np.cos(x)], axis=1)
    vertical = np.concatenate([np.sin(y), np.cos(y)], axis=1)
    table = np.concatenate(
        [
            np.broadcast_to(horizontal[None], (rows, columns, dim // 2)),
            np.broadcast_to(vertical[:, None], (rows, columns, dim // 2)),
        ],
        axis=2,
    )
    return np.ascontiguousarray(table.reshape(rows * columns, dim), dtype=np.float32)


def time_code(time: int, dim: int) -> Float32[np.ndarray, "dim"]:
    """Return the sin-cos code of the time of a video frame, in tenths of a second; -1 is a still picture: zeros.

    Source: released MiniCPM-V 4.5 resampler (added to the keys of all patches of the frame).
    """
    if time < 0:
        return np.zeros(dim, dtype=np.float32)
    omega = np.arange(dim // 2, dtype=np.float32) / np.float32(dim / 2.0)
    angle = np.float32(time) * (1.0 / 10000**omega).astype(np.float32)
    return np.concatenate([np.sin(angle), np.cos(angle)])
