"""Loss curves: for the terminal as text, for people as a picture.

Boundary: rows of ``log.jsonl`` in; pillow only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Points = list[tuple[float, float]]
LEVELS = " ▁▂▃▄▅▆▇█"
LEGEND_PX = 80
"""Width of one name of a curve."""
COLOURS = {"loss": (31, 98, 184), "held_out": (206, 92, 0)}


def points_of(rows: Sequence[dict[str, Any]], name: str) -> Points:
    """Return step and value of every row that has the value."""
    return [(float(row["step"]), float(row[name])) for row in rows if isinstance(row.get(name), int | float)]


def text_curve(points: Points, width: int = 60, height: int = 6) -> str:
    """Return a curve of blocks with its largest and smallest value at the side; the mean of each column is drawn.

    >>> print(text_curve([(1, 4.0), (2, 2.0), (3, 1.0), (4, 0.0)], width=4, height=2))
     4.000 █
     0.000 ██▄
           step 1 to 4
    """
    if not points:
        return "no values yet"
    columns: list[list[float]] = [[] for _ in range(min(width, len(points)))]
    for number, (_, value) in enumerate(points):
        columns[number * len(columns) // len(points)].append(value)
    means = [sum(column) / len(column) for column in columns]
    low, high = min(means), max(means)
    scale = (high - low) or 1.0
    fills = [(mean - low) / scale * height for mean in means]
    lines = []
    for row in reversed(range(height)):
        cells = "".join(LEVELS[round(min(max(fill - row, 0.0), 1.0) * 8)] for fill in fills)
        label = f"{high if row == height - 1 else low:6.3f}" if row in (0, height - 1) else " " * 6
        lines.append(f"{label} {cells}".rstrip())
    lines.append(f"       step {points[0][0]:.0f} to {points[-1][0]:.0f}")
    return "\n".join(lines)


def draw_curves(rows: Sequence[dict[str, Any]], file: Path, title: str, size: tuple[int, int] = (720, 400)) -> None:
    """Write the losses of a run as a PNG: learned from in blue, held out in orange."""
    curves = {name: points for name in COLOURS if (points := points_of(rows, name))}
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 60, 34, size[0] - 20, size[1] - 40
    room = right - LEGEND_PX * len(curves) - left - 10
    while title and draw.textlength(title) > room:
        title = title.removesuffix("...")[:-1].rstrip() + "..." if len(title) > 4 else ""
    draw.text((left, 10), title, fill="black")
    everything = [point for points in curves.values() for point in points]
    if everything:
        steps, values = [step for step, _ in everything], [value for _, value in everything]
        low, high = min(0.0, *values), max(values) or 1.0
        first, last = min(steps), max(steps)

        def place(step: float, value: float) -> tuple[float, float]:
            across = (step - first) / ((last - first) or 1.0)
            return left + across * (right - left), bottom - (value - low) / ((high - low) or 1.0) * (bottom - top)

        for part in range(5):
            value = low + (high - low) * part / 4
            y = place(first, value)[1]
            draw.line((left, y, right, y), fill=(225, 225, 225))
            draw.text((8, y - 6), f"{value:.3f}", fill="black")
        for share in (0.0, 0.5, 1.0):
            step = first + (last - first) * share
            draw.text((place(step, low)[0] - 12, bottom + 8), f"{step:.0f}", fill="black")
        for number, (name, points) in enumerate(curves.items()):
            dots = [place(step, value) for step, value in points]
            if len(dots) > 1:
                draw.line(dots, fill=COLOURS[name], width=2)
            else:
                draw.ellipse((dots[0][0] - 2, dots[0][1] - 2, dots[0][0] + 2, dots[0][1] + 2), fill=COLOURS[name])
            draw.text((right - LEGEND_PX * (number + 1), 10), name.replace("_", " "), fill=COLOURS[name])
    draw.rectangle((left, top, right, bottom), outline=(120, 120, 120))
    draw.text(((left + right) // 2 - 14, bottom + 22), "step", fill="black")
    image.save(file)
