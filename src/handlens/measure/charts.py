"""Charts as SVG text: points and lines with axes, readable in light and dark, without a plotting package.

Boundary: numbers in, SVG out; knows nothing of what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 34, 44
LEGEND_LINE = 18
NARROWEST = 0.02
"""An axis spans at least this share of its values, so that noise is not drawn as a difference."""
COLOURS = ("#2a6fdb", "#d1495b", "#2f9e5b", "#b07aa1", "#e08a1e")


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind."""

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    """Shown when a point is touched."""
    is_line: bool = False
    is_ring: bool = False
    """Rings stand around points of other kinds."""


def chart(title: str, x_name: str, y_name: str, series: Sequence[Series]) -> str:
    """Return one chart; axes begin at zero where all values are positive and near it.

    Several series get a legend below the chart, a line each, so that long names are read whole.
    """
    height = HEIGHT + (LEGEND_LINE * len(series) if len(series) > 1 else 0)
    points = [point for one in series for point in one.points]
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(title, quote=True)}" font-family="sans-serif" font-size="12" fill="currentColor">'
        ),
        f'<text x="{LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>',
        (
            f'<text x="14" y="{HEIGHT / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2:.0f})">'
            f"{escape(y_name)}</text>"
        ),
    ]
    for value in _ticks(y_low, y_high):
        _, y = place(x_low, value)
        line = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {line} stroke="currentColor" stroke-opacity="0.15"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(x_low, x_high):
        x, _ = place(value, y_low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in one.points]
        if one.is_line and len(placed) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        else:
            for place_number, (x, y) in enumerate(placed):
                label = one.labels[place_number] if place_number < len(one.labels) else one.name
                look = f'r="8" fill="none" stroke="{colour}" stroke-width="2"' if one.is_ring else (
                    f'r="4" fill="{colour}" fill-opacity="0.75"'
                )  # fmt: skip
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(label)}</title></circle>')
        if len(series) > 1:
            y = HEIGHT + 10 + LEGEND_LINE * number
            parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
                         f'<text x="{LEFT + 15}" y="{y}">{escape(one.name)}</text>')  # fmt: skip
    return "\n".join([*parts, "</svg>"])


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis, never equal."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if 0 <= low < 0.6 * high:
        low = 0.0
    is_narrow = high - low < NARROWEST * abs(high)
    pad = abs(high) * 0.1 if is_narrow else (high - low) * 0.06 or 1.0
    return (low if low == 0 else low - pad), high + pad


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round values between the ends.

    >>> _ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    import math

    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * number, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]
