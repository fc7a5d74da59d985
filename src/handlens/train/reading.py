"""Phase ``vision``: teach the tower to name the characters and things under each patch, and where the patch lies.

It stands in for a pretrained backbone. What the tower says about place lets a resampler, whose keys know only counted
rows and columns, find the same cell in slices of any shape (``warmstart.py``). The head is thrown away. Boundary:
records to labels, labels to a loss.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from handlens.core.slicing import SlicePlan
from handlens.data.records import Record
from handlens.train.warmstart import CODE

CHARACTERS = (
    "".join(map(chr, range(33, 127))) + "€£°–éüßñ" + "áàâãäçêèëíîìóòôõöúùûœ" + "ÁÀÂÃÄÇÉÈÊËÍÎÓÔÕÖÚÙÛÜ" + "¡¿«»“”„"
)
"""What is named: printable ASCII, and the letters and marks of the six languages of tier A."""
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white", "brown", "pink", "gray")
_PER_PATCH = 2
"""Cells per side of a patch: characters narrower than a patch get cells of their own."""
NUM_LABELS = _PER_PATCH**2 + 2
"""Label columns per patch: four characters, one shape, one colour; 0 means nothing there."""


def patch_labels(record: Record, plan: SlicePlan) -> list[Int64[np.ndarray, "_ labels"]]:
    """Return the labels of every patch of the overview and of each slice, in encoding order."""
    views = [(0.0, 0.0, float(plan.width), float(plan.height))]
    if plan.grid:
        step_x, step_y = plan.width / plan.grid.columns, plan.height / plan.grid.rows
        views += [
            (column * step_x, row * step_y, (column + 1) * step_x, (row + 1) * step_y)
            for row in range(plan.grid.rows)
            for column in range(plan.grid.columns)
        ]
    glyphs = [glyph for line in record.lines for glyph in line.glyphs if glyph.char in CHARACTERS]
    codes = np.array([CHARACTERS.index(glyph.char) + 1 for glyph in glyphs], dtype=np.int64)
    boxes = np.array([glyph.box for glyph in glyphs], dtype=np.float64).reshape(-1, 4)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    labels = []
    for (left, top, right, bottom), (rows, columns) in zip(views, plan.patches, strict=True):
        grid = np.zeros((rows, columns, NUM_LABELS), dtype=np.int64)
        u = (centres[:, 0] - left) / (right - left) * columns * _PER_PATCH
        v = (centres[:, 1] - top) / (bottom - top) * rows * _PER_PATCH
        inside = (u >= 0) & (v >= 0) & (u < columns * _PER_PATCH) & (v < rows * _PER_PATCH)
        iu, iv = u[inside].astype(int), v[inside].astype(int)
        cell = (iv % _PER_PATCH) * _PER_PATCH + iu % _PER_PATCH
        grid[iv // _PER_PATCH, iu // _PER_PATCH, cell] = codes[inside]
        for thing in record.things:
            x0 = (thing.box[0] - left) / (right - left) * columns
            x1 = (thing.box[2] - left) / (right - left) * columns
            y0 = (thing.box[1] - top) / (bottom - top) * rows
            y1 = (thing.box[3] - top) / (bottom - top) * rows
            # The inner two thirds, so that a patch labelled "star" does show some star.
            inset_x, inset_y = (x1 - x0) / 6, (y1 - y0) / 6
            across = slice(max(int(x0 + inset_x), 0), max(int(np.ceil(x1 - inset_x)), 0))
            down = slice(max(int(y0 + inset_y), 0), max(int(np.ceil(y1 - inset_y)), 0))
            grid[down, across, -2] = SHAPES.index(thing.shape) + 1
            grid[down, across, -1] = COLOURS.index(thing.colour) + 1
        labels.append(grid.reshape(rows * columns, NUM_LABELS))
    return labels


class ReadingHead(nn.Module):
    """The throw-away head: one linear layer per label column, and one for the place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(CHARACTERS) + 1] * _PER_PATCH**2 + [len(SHAPES) + 1, len(COLOURS) + 1]
        self.out = nn.Linear(width, sum(self.sizes))
        self.place = nn.Linear(width, CODE)

    def forward(
        self,
        patches: Float[Tensor, "real dim"],
        labels: Int64[Tensor, "real labels"],
        places: Float[Tensor, "real code"],
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Return the loss, the accuracy on patches where something is, and R squared of the place."""
        loss = patches.new_zeros(())
        scores: dict[str, list[Tensor]] = {"characters": [], "shapes": [], "colours": []}
        for column, logits in enumerate(self.out(patches).split(self.sizes, dim=-1)):
            target = labels[:, column]
            weight = torch.ones(logits.shape[-1])
            weight[0] = 0.05  # most cells are empty
            loss = loss + F.cross_entropy(logits, target, weight=weight)
            there = target > 0
            kind = "characters" if column < _PER_PATCH**2 else ("shapes", "colours")[column - _PER_PATCH**2]
            scores[kind].append((logits.argmax(-1) == target)[there])
        missed = F.mse_loss(self.place(patches), places)
        named = {kind: torch.cat(hits).float() for kind, hits in scores.items()}
        shares = {kind: float(hits.mean()) for kind, hits in named.items() if hits.numel()}
        # Sines and cosines over whole waves: the variance of a code is a half.
        return loss / len(self.sizes) + missed, shares | {"place_r2": 1 - 2 * float(missed.detach())}
