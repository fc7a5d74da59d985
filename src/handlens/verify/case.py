"""What is computed twice, and what came out: a case, and the trace of one side through all stages.

Boundary: plain data; knows no model and no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image

from handlens.core.images import Picture
from handlens.families import Family

STAGES = (
    "slice grid", "pixels", "patch positions", "vision tokens", "visual tokens", "prompt ids", "logits", "greedy text",
)  # fmt: skip
"""In the order of a picture's way; the first that differs is where to look."""
MARK = "(<image>./</image>)"
NUM_GREEDY = 16
"""Tokens of the likeliest continuation that are compared."""
LAST_ROWS = 8
"""Places at the end of a prompt whose logits a device gives."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question about some pictures; the names of the fields in a recorded reference stand behind them."""

    name: str
    prompt: str
    """Rendered turns with one mark per picture (``prompt``)."""
    pictures: tuple[Picture, ...] = ()
    files: tuple[str, ...] = ()
    """Names of the pictures in a reference folder (``images``)."""
    max_slices: int | None = None
    """``max_slice_nums``."""
    use_image_id: bool | None = None
    times: tuple[tuple[int, ...], ...] | None = None
    """Times of frames per group (``temporal_ids``, 4.5)."""
    mode: str | None = None
    """``16x`` or ``4x`` (``downsample_mode``, 4.6)."""

    @property
    def groups(self) -> tuple[int, ...] | None:
        """Frames per group."""
        return None if self.times is None else tuple(len(group) for group in self.times)


@dataclass(kw_only=True)
class Trace:
    """What one side computed; None where it cannot be seen from outside."""

    grids: list[tuple[int, int]] | None = None
    """Rows and columns of patches of every slice."""
    num_slices: int | None = None
    pixels: list[np.ndarray] | None = None
    """The arrays of the released processor."""
    positions: Int64[np.ndarray, "real"] | None = None
    """Rows of the position table, slices one after the other."""
    vision: list[np.ndarray] | None = None
    visual: list[np.ndarray] | None = None
    expanded: str | None = None
    ids: Int64[np.ndarray, "tokens"] | None = None
    is_visual: np.ndarray | None = None
    embeddings: Float32[np.ndarray, "tokens dim"] | None = None
    logits: Float32[np.ndarray, "rows vocab"] | None = None
    """Of the last places of the prompt, at most all of them."""
    greedy: list[int] | None = None
    margins: list[float] | None = None
    """Likeliest minus second likeliest logit at every step of ``greedy``."""
    notes: dict[str, str] = field(default_factory=dict)
    """Stage -> why it is not computed."""


def drawn_picture(width_px: int, height_px: int, name: str) -> Picture:
    """Return a picture that every machine draws alike, with detail in all three colours."""
    x, y = np.meshgrid(np.arange(width_px), np.arange(height_px))
    colours = [(7 * x + 3 * y) % 256, (x**2 // 5 + y) % 256, (x + y**2 // 7) % 256]
    return Picture(Image.fromarray(np.stack(colours, axis=-1).astype(np.uint8)), name)


def user_prompt(family: Family, question: str, num_pictures: int) -> str:
    """Return a turn by the family's template with one mark per picture, without the token that begins a prompt."""
    template = family.template
    mark = family.placeholder if family.tower == "native" else MARK
    content = "\n".join([*[mark] * num_pictures, question])
    system = template.system.format(text=template.default_system) if template.default_system is not None else ""
    return system + template.user.replace("{text}", content) + template.opening + template.thought


def standard_cases(family: Family, side_px: int, pictures: Sequence[Picture] = ()) -> list[Case]:
    """Return a text, one slice and nine slices with an overview; then one case per picture of the user.

    Both drawn sizes are sliced alike by the released code and by llama.cpp.
    """
    square = drawn_picture(side_px, side_px, "square.png")
    large = drawn_picture(3 * side_px, 3 * side_px, "sliced.png")
    shown = [("square", square, "What is drawn here?"), ("sliced", large, "Describe what is drawn.")]
    shown += [(f"picture{number}", picture, "What is shown?") for number, picture in enumerate(pictures)]
    text = Case(name="text", prompt=user_prompt(family, "Name a colour. Then count to three.", 0))
    return [text] + [
        Case(
            name=name,
            prompt=user_prompt(family, question, 1),
            pictures=(picture,),
            files=(picture.name if name in ("square", "sliced") else f"{name}.png",),
        )
        for name, picture, question in shown
    ]
