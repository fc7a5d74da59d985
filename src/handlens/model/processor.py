"""Prepare pictures for the torch model: plan, pixels, positions, and the batch of slices of one prompt.

Boundary: Pillow pictures in, torch tensors out; the rules of a version come from its family record.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from PIL import Image

from handlens.config import HandlensConfig
from handlens.core.patches import key_positions, normalise, position_ids, time_code, to_patches, to_strip
from handlens.core.slicing import SlicePlan, cell_boxes, cut, plan_slices, plan_square
from handlens.errors import SettingError
from handlens.families import Family
from handlens.model.vlm import SliceBatch

Pixels = Float32[np.ndarray, "3 _ _"]
Times = Sequence[Sequence[int]]
"""Times of the frames of every group, in tenths of a second; [-1] is a still picture."""


def plan_picture(
    width_px: int, height_px: int, config: HandlensConfig, family: Family, max_slices: int | None = None
) -> SlicePlan:
    """Return how a picture is divided by the rules of a family.

    Raises:
        ImageError: a side is below one pixel.
        SettingError: ``max_slices`` is below one.
    """
    side_px, patch_px = config.slicing.side_px, config.slicing.patch_px
    if family.division == "square":
        return plan_square(width_px, height_px, side_px=side_px, patch_px=patch_px)
    return plan_slices(
        width_px,
        height_px,
        side_px=side_px,
        max_slices=config.slicing.max_slices if max_slices is None else max_slices,
        patch_px=patch_px,
        multiple_px=patch_px * max(1, family.merge),
        prefer_rows=family.division == "grid_of_rows",
    )


def picture_pixels(image: Image.Image, plan: SlicePlan, family: Family) -> list[Pixels]:
    """Return the normalised pixels of overview and slices, bit-equal to the released processor."""
    if family.tower == "native":
        return _torch_pixels(image, plan)
    return [normalise(part) for part in cut(image, plan)]


def _torch_pixels(image: Image.Image, plan: SlicePlan) -> list[Pixels]:
    """Resize as the default image processor of 4.6 does: torch's antialiased bicubic filter on bytes.

    Pillow's filter differs from it by up to 2 of 255. The fused normalisation rounds in another place, too.
    """
    whole = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]

    def scaled(size: tuple[int, int]) -> torch.Tensor:
        if size == image.size:
            return whole[0]
        return F.interpolate(whole, size=size[::-1], mode="bicubic", antialias=True, align_corners=False)[0]

    parts = [scaled(plan.overview)]
    if plan.refined is not None:
        refined = scaled(plan.refined)
        parts += [refined[:, top:bottom, left:right] for left, top, right, bottom in cell_boxes(plan, of=plan.refined)]
    return [((part.float() - 127.5) / 127.5).numpy() for part in parts]


def official_layout(pixels: Sequence[Pixels], config: HandlensConfig, family: Family) -> list[np.ndarray]:
    """Return the arrays that the released processor hands to its model.

    [3, height, width] per slice (1.0, 2.0), [3, patch, strip] per slice (2.5 to 4.5), one packed [1, 3, patch, strip]
    (4.6).
    """
    if family.tower == "timm":
        return list(pixels)
    strips = [to_strip(part, config.vision.patch_px) for part in pixels]
    return [np.concatenate(strips, axis=-1)[None]] if family.tower == "native" else strips


def patch_grids(pixels: Sequence[Pixels], patch_px: int) -> tuple[tuple[int, int], ...]:
    """Return rows and columns of patches of every slice."""
    return tuple((part.shape[1] // patch_px, part.shape[2] // patch_px) for part in pixels)


def table_rows(
    grids: Sequence[tuple[int, int]], config: HandlensConfig, family: Family
) -> list[Int64[np.ndarray, "_"]]:
    """Return the row of the position table for every patch of every slice of one prompt."""
    longest = max(rows * columns for rows, columns in grids)
    side, rule = config.vision.table_side, family.position_rule
    return [position_ids(*grid, table_side=side, rule=rule, num_padded=longest) for grid in grids]


def batch_slices(
    pixels: Sequence[Pixels], config: HandlensConfig, family: Family, times: Times | None = None
) -> SliceBatch:
    """Return all slices of one prompt as one padded batch; padding is zero, as in the released code.

    Raises:
        SettingError: ``times`` is not one number per slice, or the family does not group frames.
    """
    grids = patch_grids(pixels, config.vision.patch_px)
    counts = [rows * columns for rows, columns in grids]
    longest, width = max(counts), config.resampler.width
    patches = np.zeros((len(pixels), longest, 3 * config.vision.patch_px**2), dtype=np.float32)
    places = np.zeros((len(pixels), longest), dtype=np.int64)
    keys = np.zeros((len(pixels), longest, width), dtype=np.float32)
    rows_of_table = table_rows(grids, config, family)
    if family.attends_padding:
        places[:] = position_ids(1, longest, table_side=config.vision.table_side, rule="row")
    for number, count in enumerate(counts):
        patches[number, :count] = to_patches(pixels[number], config.vision.patch_px)
        places[number, :count] = rows_of_table[number]
        keys[number, :count] = key_positions(*grids[number], width)
    groups = None
    if times is not None:
        groups = _frame_groups(times, len(pixels), family)
        for number, time in enumerate(time for group in times for time in group):
            keys[number, : counts[number]] += time_code(time, width)
    is_real = np.arange(longest) < np.asarray(counts)[:, None]
    return SliceBatch(
        torch.from_numpy(patches),
        torch.from_numpy(places),
        torch.from_numpy(keys),
        None if is_real.all() else torch.from_numpy(is_real),
        grids=grids,
        groups=groups,
        merge=family.merge,
    )


def _frame_groups(times: Times, num_slices: int, family: Family) -> tuple[int, ...]:
    if not family.groups_frames:
        raise SettingError(
            f"family {family.name} gives every frame its own visual tokens; leave out the times (4.5 groups)"
        )
    groups = tuple(len(group) for group in times)
    if sum(groups) != num_slices or 0 in groups:
        raise SettingError(
            f"times name {sum(groups)} frames in {len(groups)} groups but {num_slices} slices were given; "
            "give one time per frame, no empty group, and max_slices 1"
        )
    return groups
