"""Decide how a picture is divided into slices and an overview, and cut it.

Boundary: sizes in, sizes and pixels out; knows no model.
"""

import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from handlens.errors import ImageError, SettingError

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Grid:
    """Columns and rows of slices."""

    columns: int
    rows: int

    @property
    def num_cells(self) -> int:
        """Slices in the grid, without the overview."""
        return self.columns * self.rows


@dataclass(frozen=True, kw_only=True)
class SlicePlan:
    """What becomes of one picture; sizes are (width, height) in pixels."""

    width: int
    height: int
    grid: Grid | None
    """None when the picture is encoded whole."""
    overview: Size
    refined: Size | None
    """Size of the enlarged picture from which the cells are cut."""
    patch_px: int = 14

    @property
    def cell(self) -> Size | None:
        """Size of one slice."""
        if self.grid is None or self.refined is None:
            return None
        return self.refined[0] // self.grid.columns, self.refined[1] // self.grid.rows

    @property
    def num_slices(self) -> int:
        """How many pictures are encoded: cells and overview."""
        return 1 + (self.grid.num_cells if self.grid else 0)

    @property
    def patches(self) -> list[tuple[int, int]]:
        """Rows and columns of patches of every encoded slice, overview first."""
        shapes = [(self.overview[1] // self.patch_px, self.overview[0] // self.patch_px)]
        if self.grid and self.cell:
            shapes += [(self.cell[1] // self.patch_px, self.cell[0] // self.patch_px)] * self.grid.num_cells
        return shapes

    @property
    def resize_factor(self) -> float:
        """Linear scale of the finest view against the picture (below 1: detail is lost)."""
        finest = self.refined or self.overview
        return math.sqrt(finest[0] * finest[1] / (self.width * self.height))


def round_to_multiple(length: float | int, multiple: int) -> int:
    """Round half to even to a multiple that is at least one.

    >>> round_to_multiple(21, 14), round_to_multiple(35, 14), round_to_multiple(1, 14)
    (28, 28, 14)
    """
    return max(round(length / multiple) * multiple, multiple)


def fit_area(width: float | int, height: float | int, *, side_px: int, patch_px: int, enlarge: bool) -> Size:
    """Scale a size to the area ``side_px ** 2``, both sides multiples of the patch.

    Sizes below that area stay as they are unless ``enlarge``.

    >>> fit_area(640, 480, side_px=448, patch_px=14, enlarge=False)
    (518, 392)
    """
    if width * height > side_px * side_px or enlarge:
        ratio = width / height
        height = int(side_px / math.sqrt(ratio))
        width = int(height * ratio)
    return round_to_multiple(width, patch_px), round_to_multiple(height, patch_px)


def choose_grid(
    width_px: int, height_px: int, *, side_px: int = 448, max_slices: int = 9, prefer_rows: bool = False
) -> Grid | None:
    """Pick the grid whose cells are least stretched; None when one slice is enough.

    The picture wants ``ceil(area / side**2)`` slices, at most ``max_slices``. That number and its
    neighbours are tried (a prime has only 1xN grids); the first of equals wins, or with ``prefer_rows``
    the one with most rows (4.6).

    Source: arXiv 2408.01800, section 3.2, in the form of the released code.

    >>> choose_grid(1920, 1080)
    Grid(columns=4, rows=2)
    """
    wanted = min(math.ceil(width_px * height_px / (side_px * side_px)), max_slices)
    if wanted <= 1:
        return None
    log_ratio = math.log(width_px / height_px)
    candidates = [
        Grid(columns, num // columns)
        for num in (wanted - 1, wanted, wanted + 1)
        if 1 < num <= max_slices
        for columns in range(1, num + 1)
        if num % columns == 0
    ]
    return min(
        candidates,
        key=lambda grid: (abs(log_ratio - math.log(grid.columns / grid.rows)), -grid.rows if prefer_rows else 0),
    )


def plan_slices(
    width_px: int,
    height_px: int,
    *,
    side_px: int = 448,
    max_slices: int = 9,
    patch_px: int = 14,
    enlarge_overview: bool = True,
    multiple_px: int | None = None,
    prefer_rows: bool = False,
) -> SlicePlan:
    """Return grid and sizes exactly as the released code computes them.

    ``multiple_px``: sides of slices are multiples of it, of ``patch_px`` where it is not given. 4.6 needs 56
    or 28, and ``prefer_rows``; the other versions need neither.

    Raises:
        ImageError: a side is below one pixel.
        SettingError: ``max_slices`` is below one.
    """
    if width_px < 1 or height_px < 1:
        raise ImageError(f"picture is {width_px}x{height_px} px; both sides must be at least 1 px")
    if max_slices < 1:
        raise SettingError(f"max_slices is {max_slices}; it must be at least 1")
    multiple_px = multiple_px or patch_px
    grid = choose_grid(width_px, height_px, side_px=side_px, max_slices=max_slices, prefer_rows=prefer_rows)
    overview = fit_area(
        width_px, height_px, side_px=side_px, patch_px=multiple_px, enlarge=grid is None and enlarge_overview
    )
    refined = None
    if grid is not None:
        cell = fit_area(
            round_to_multiple(width_px, grid.columns) / grid.columns,
            round_to_multiple(height_px, grid.rows) / grid.rows,
            side_px=side_px,
            patch_px=multiple_px,
            enlarge=True,
        )
        refined = (cell[0] * grid.columns, cell[1] * grid.rows)
    return SlicePlan(width=width_px, height=height_px, grid=grid, overview=overview, refined=refined, patch_px=patch_px)


def plan_square(width_px: int, height_px: int, *, side_px: int = 448, patch_px: int = 14) -> SlicePlan:
    """Return the plan of 1.0: the whole picture as one square, its shape not kept.

    Raises:
        ImageError: a side is below one pixel.
    """
    if width_px < 1 or height_px < 1:
        raise ImageError(f"picture is {width_px}x{height_px} px; both sides must be at least 1 px")
    return SlicePlan(
        width=width_px, height=height_px, grid=None, overview=(side_px, side_px), refined=None, patch_px=patch_px
    )


def cell_boxes(plan: SlicePlan, *, of: Size) -> list[tuple[int, int, int, int]]:
    """Return the row-major cell boxes (left, top, right, bottom) on a picture of size ``of``."""
    if plan.grid is None:
        return []
    columns, rows = plan.grid.columns, plan.grid.rows
    lefts = [of[0] * column // columns for column in range(columns + 1)]
    tops = [of[1] * row // rows for row in range(rows + 1)]
    return [
        (lefts[column], tops[row], lefts[column + 1], tops[row + 1]) for row in range(rows) for column in range(columns)
    ]


def cut(
    image: Image.Image, plan: SlicePlan, *, order: Literal["resize_then_crop", "crop_then_resize"] = "resize_then_crop"
) -> list[Image.Image]:
    """Return the overview and the row-major slices as RGB pictures of the planned sizes.

    ``resize_then_crop`` is the released code; ``crop_then_resize`` is the wording of arXiv 2408.01800,
    section 3.2, which keeps a slice free of its neighbours' pixels.
    """
    if image.size != (plan.width, plan.height):
        raise ImageError(f"the plan is for {plan.width}x{plan.height} px but the picture has {image.size}")
    pictures = [image.resize(plan.overview, Image.Resampling.BICUBIC)]
    if plan.grid is None or plan.refined is None or plan.cell is None:
        return pictures
    if order == "crop_then_resize":
        # A side shorter than the grid has empty cells; such a cell shows the one nearest pixel row or column.
        for left, top, right, bottom in cell_boxes(plan, of=image.size):
            right, bottom = max(right, left + 1), max(bottom, top + 1)
            left, top = min(left, image.width - 1), min(top, image.height - 1)
            crop = image.crop((left, top, min(right, image.width), min(bottom, image.height)))
            pictures.append(crop.resize(plan.cell, Image.Resampling.BICUBIC))
        return pictures
    refined = image.resize(plan.refined, Image.Resampling.BICUBIC)
    return pictures + [refined.crop(box) for box in cell_boxes(plan, of=plan.refined)]
