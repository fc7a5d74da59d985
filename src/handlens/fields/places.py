"""Find the slice that an answer was read from: which slice alone makes it likeliest.

Boundary: log-probabilities through ``Reader``, boxes on the picture out. No attention is looked at: the only evidence
is what the model says when it is shown one slice and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from handlens.align.judge import Sliced, only_slice
from handlens.answerer import Seen
from handlens.core.slicing import SlicePlan, cell_boxes
from handlens.fields.forms import NOT_PRESENT
from handlens.fields.schema import Field

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in px of the picture; right and bottom are outside."""
MARGIN = 0.2
"""Part of a slice that is added on every side before it is looked at again; text may lie across its edge."""


@runtime_checkable
class Scorer(Protocol):
    """Says how likely answers are; see ``Reader``."""

    def scores(self, field: Field, seen: Seen, answers: Sequence[str]) -> list[float]:
        """Return the log-probability (nats) of each answer to a field."""
        ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an answer was read."""

    slice: Sliced
    box: Box
    share: float
    """Probability that this slice alone gives the answer, as a share of the sum over all slices of the grid.

    ``1 / slices`` says nothing, 1 says that no other slice could give it. For ``not present`` it is the slice that
    denies it least: where to look again.
    """


def find_places(reader: Scorer, seen: Seen, wanted: Sequence[tuple[Field, str]], *, number: int = 0) -> list[Place]:
    """Return the place of each answer on one picture; the whole of it where it was not sliced.

    Slices are the outer loop: questions about one slice share its visual tokens.
    """
    plan = seen.pictures[number].plan
    boxes = boxes_of(plan)
    if plan.grid is None:
        return [Place(slice=Sliced(picture=number, slice=0), box=boxes[0], share=1.0) for _ in wanted]
    logprobs = np.zeros((len(boxes), len(wanted)))
    for cell in range(len(boxes)):
        alone = only_slice(seen, number, cell + 1)
        for column, (field, answer) in enumerate(wanted):
            (score,) = reader.scores(field, alone, [answer])
            # The least likely denial is what speaks most for a value.
            logprobs[cell, column] = -score if answer == NOT_PRESENT else score
    return [_place(logprobs[:, column], boxes, plan, number) for column in range(len(wanted))]


def boxes_of(plan: SlicePlan) -> list[Box]:
    """Return the boxes of the grid's slices, row by row, or the box of the whole picture."""
    return cell_boxes(plan, of=(plan.width, plan.height)) or [(0, 0, plan.width, plan.height)]


def widened(box: Box, plan: SlicePlan) -> Box:
    """Return a box with ``MARGIN`` around it, inside the picture."""
    wide, high = round(MARGIN * (box[2] - box[0])), round(MARGIN * (box[3] - box[1]))
    return (
        max(0, box[0] - wide), max(0, box[1] - high), min(plan.width, box[2] + wide), min(plan.height, box[3] + high),
    )  # fmt: skip


def inside(outer: Box, inner: Box, plan: SlicePlan) -> Box:
    """Return a box on an enlarged part as a box on the picture; ``plan`` is that of the part.

    >>> part = SlicePlan(width=200, height=100, grid=None, overview=(200, 100), refined=None)
    >>> inside((50, 60, 150, 110), (0, 50, 100, 100), part)
    (50, 85, 100, 110)
    """
    wide, high = outer[2] - outer[0], outer[3] - outer[1]
    left, top, right, bottom = inner
    return (
        outer[0] + left * wide // plan.width, outer[1] + top * high // plan.height,
        outer[0] - (-right * wide // plan.width), outer[1] - (-bottom * high // plan.height),
    )  # fmt: skip


def _place(logprobs: np.ndarray, boxes: Sequence[Box], plan: SlicePlan, number: int) -> Place:
    best = int(logprobs.argmax())
    share = float(np.exp(logprobs[best] - np.logaddexp.reduce(logprobs)))
    assert plan.grid is not None
    row, column = divmod(best, plan.grid.columns)
    where = Sliced(picture=number, slice=best + 1, row=row, column=column)
    return Place(slice=where, box=boxes[best], share=share)
