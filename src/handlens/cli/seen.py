"""Say and draw what a model sees of a picture.

Boundary: slice plans in, words and pictures out; ``ask``, ``chat`` and ``slices`` print them.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from handlens.core.sight import SMALLEST_LETTER_PX, Sight
from handlens.core.slicing import SlicePlan, cell_boxes
from handlens.errors import SettingError

LONGEST_SIDE_PX = 2000
"""A drawing is not larger than this; the grid needs no more."""
RED = (214, 40, 40)


def describe(name: str, plan: SlicePlan, num_queries: int) -> str:
    """Return what the model sees, for people: one line of facts, one of consequences."""
    if plan.grid and plan.cell:
        grid = f"grid {plan.grid.columns}x{plan.grid.rows} of {_size(plan.cell)} px and an overview of"
    else:
        grid = "no grid, one view of"
    num_encoded = f"{plan.num_slices} {'slice' if plan.num_slices == 1 else 'slices'}"
    factor = plan.resize_factor
    letter_px = max(1, round(SMALLEST_LETTER_PX / factor))
    lost = round(100 * (1 - factor**2))
    detail = f"{lost} % of the pixels are dropped" if lost > 0 else "no detail is dropped"
    return (
        f"{name}: {plan.width}x{plan.height} px, {grid} {_size(plan.overview)} px, "
        f"{num_encoded}, {plan.num_slices * num_queries} visual tokens\n"
        f"  resize factor {factor:.2f}; smallest readable letters about {letter_px} px high; {detail}"
    )


def describe_sight(sight: Sight) -> str:
    """Return ``describe`` with a warning and what to do about it where text is too small to read."""
    lines = [describe(sight.name, sight.plan, sight.num_queries)]
    if sight.warning:
        lines += [f"  warning: {sight.warning}", f"  what helps: {sight.advice}"]
    return "\n".join(lines)


def draw(image: Image.Image, plan: SlicePlan) -> Image.Image:
    """Return the picture with numbered slices and a caption that notes the overview, which is slice 0."""
    scale = min(1.0, LONGEST_SIDE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shown = image.resize(size, Image.Resampling.BICUBIC) if scale < 1 else image
    letter_px = max(14, max(size) // 50)
    font = ImageFont.load_default(letter_px)
    caption = _caption(plan)
    width = max(size[0], int(font.getlength(caption)) + letter_px)
    sheet = Image.new("RGB", (width, size[1] + 2 * letter_px), "white")
    sheet.paste(shown, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, box in enumerate(cell_boxes(plan, of=size), start=1):
        left, top, right, bottom = box
        line_px = max(2, letter_px // 8)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=RED, width=line_px)
        corner = (left + line_px, top + line_px)
        label = pen.textbbox(corner, str(number), font=font)
        pen.rectangle((*corner, label[2] + 4, label[3] + 4), fill=RED)
        pen.text((corner[0] + 2, corner[1] + 1), str(number), fill="white", font=font)
    pen.text((letter_px // 2, size[1] + letter_px // 3), caption, fill="black", font=font)
    return sheet


def save_drawing(image: Image.Image, plan: SlicePlan, file: Path) -> None:
    """Write the drawing; the ending of the name chooses the format.

    Raises:
        SettingError: the ending is unknown or the file cannot be written.
    """
    try:
        draw(image, plan).save(file)
    except ValueError:
        raise SettingError(f"cannot write {file}: its ending names no picture format; end it with .png") from None
    except OSError as cause:
        raise SettingError(f"cannot write {file}: {cause.strerror or cause}") from None


def _caption(plan: SlicePlan) -> str:
    overview = f"the whole picture at {_size(plan.overview)} px"
    if plan.grid is None or plan.cell is None:
        return f"not sliced; seen: {overview}"
    return f"0 (overview): {overview}; 1 to {plan.grid.num_cells}: slices of {_size(plan.cell)} px"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
