"""What a model saw of a picture, in numbers and words: grid, resize factor, visual tokens, text that got too small.

Boundary: pictures and slice plans in, plain values and sentences out; command line, server and page show them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from handlens.core.images import Picture
from handlens.core.letters import letter_heights
from handlens.core.slicing import SlicePlan

SMALLEST_LETTER_PX = 8
"""Height of a small letter that a model still reads, in pixels of what it sees: over half a patch of 14 px."""
MIN_LETTERS = 12
"""Fewer marks in a row are no text."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One picture as the model sees it."""

    name: str
    plan: SlicePlan
    num_queries: int
    num_letters: int
    """Marks that look like letters; 0 where the picture has no text."""
    num_too_small: int
    """Letters lower than ``SMALLEST_LETTER_PX`` after resizing."""
    letter_px: float
    """Median height of the letters that are too small, on the picture; of all letters when none is."""

    @property
    def visual_tokens(self) -> int:
        """Visual tokens that the language model reads."""
        return self.plan.num_slices * self.num_queries

    @property
    def smallest_letter_px(self) -> int:
        """Height on the picture of the smallest letter that is still readable after resizing."""
        return max(1, round(SMALLEST_LETTER_PX / self.plan.resize_factor))

    @property
    def warning(self) -> str | None:
        """What was lost, with numbers; None when nothing readable was."""
        if not self.num_too_small:
            return None
        seen_px = self.letter_px * self.plan.resize_factor
        return (
            f"about {self.num_too_small} of {self.num_letters} letters are too small to read: "
            f"{self.letter_px:.0f} px high on the picture, {seen_px:.1f} px after resizing, {SMALLEST_LETTER_PX} needed"
        )

    @property
    def advice(self) -> str | None:
        """What to change so that the letters can be read; None when nothing has to be."""
        if not self.num_too_small:
            return None
        plan, needed = self.plan, SMALLEST_LETTER_PX / self.letter_px
        if needed > 1 and plan.resize_factor >= 1:
            return f"take the picture from {needed:.1f} times nearer, or scan it at {needed:.1f} times the resolution"
        # The same visual detail, spent on a smaller part of the picture.
        share = plan.resize_factor / needed
        return (
            f"cut out the part you ask about, at most {round(plan.width * share)}x{round(plan.height * share)} px "
            f"of {plan.width}x{plan.height}"
        )


def look_at(picture: Picture, plan: SlicePlan, num_queries: int) -> Sight:
    """Measure a picture and say what the model sees of it."""
    heights = letter_heights(picture.image)
    seen_px = heights * plan.resize_factor
    too_small = heights[seen_px < SMALLEST_LETTER_PX] if len(heights) >= MIN_LETTERS else heights[:0]
    # A few low marks are commas and accents, not small text.
    too_small = too_small if len(too_small) >= max(MIN_LETTERS, len(heights) // 50) else heights[:0]
    return Sight(
        name=picture.name,
        plan=plan,
        num_queries=num_queries,
        num_letters=len(heights) if len(heights) >= MIN_LETTERS else 0,
        num_too_small=len(too_small),
        letter_px=float(np.median(too_small if len(too_small) else heights)) if len(heights) >= MIN_LETTERS else 0.0,
    )


def plan_to_json(plan: SlicePlan) -> dict[str, Any]:
    """Return a plan as plain values; grid, refined and cell_patches are null when it is not sliced."""
    return {
        "width": plan.width,
        "height": plan.height,
        "grid": [plan.grid.columns, plan.grid.rows] if plan.grid else None,
        "overview": list(plan.overview),
        "refined": list(plan.refined) if plan.refined else None,
        "cell_patches": list(plan.patches[1]) if plan.grid else None,
        "num_slices": plan.num_slices,
    }


def sight_to_json(sight: Sight) -> dict[str, Any]:
    """Return everything that is known as plain values."""
    return {
        "name": sight.name,
        **plan_to_json(sight.plan),
        "visual_tokens": sight.visual_tokens,
        "resize_factor": round(sight.plan.resize_factor, 4),
        "smallest_letter_px": sight.smallest_letter_px,
        "letters": sight.num_letters,
        "letters_too_small": sight.num_too_small,
        "letter_px": round(sight.letter_px, 1),
        "warning": sight.warning,
        "advice": sight.advice,
    }
