"""What a visual token should know: the characters, shape and colour in its cell of the slice.

Query i of the resampler begins by reading cell i of a grid laid over the slice (``warmstart.py``). A small run
cannot wait until answers alone teach what to put there, so the two sides are taught apart and then joined:
``gather``  the tower learns to say what each cell holds in a way that survives the addition of its patches;
``cells``   tower and resampler learn to name what each cell holds, through a throw-away head;
``layout``  the language model learns to read cells whose content is told by tables that stand for the eyes.
``align`` then turns the resampler's output into the form that the tables had. Boundary: records to labels, labels
to losses and embeddings; the weights that remain have the official layout.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from handlens.core.slicing import SlicePlan
from handlens.core.tokenizer import Tokenizer
from handlens.data.records import Record
from handlens.train.reading import CHARACTERS, COLOURS, SHAPES
from handlens.train.warmstart import CODE, SHARPNESS, query_codes

LETTERS = CHARACTERS + " "
BANDS = 2
"""Text lines that a cell can hold, one above the other."""
RUN = 4
"""Characters of one line that a cell can hold, each in its quarter; more are dropped."""
NUM_SLOTS = BANDS * RUN
EYES = "eyes.safetensors"
"""File of the tables that phase ``layout`` leaves beside its weights."""
NUM_CELL_LABELS = NUM_SLOTS + 2
"""Label columns per cell: characters, one shape, one colour; 0 means nothing there."""
UNKNOWN = -100
"""Label of a character that has no name here (a letter of another script): neither it nor "nothing" is asked for."""


def cell_labels(record: Record, plan: SlicePlan, side: int) -> list[Int64[np.ndarray, "cells labels"]]:
    """Return the labels of the ``side * side`` cells of the overview and of each slice, in encoding order.

    All characters of a line count to the band in which the middle of the line lies, so that a slight turn of the
    page does not scatter a word over two bands.
    """
    width, height = record.picture.size
    views = [(0.0, 0.0, 1.0, 1.0)]
    if plan.grid:
        wide, high = 1 / plan.grid.columns, 1 / plan.grid.rows
        views += [
            (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
            for row in range(plan.grid.rows)
            for column in range(plan.grid.columns)
        ]
    labels = []
    for left, top, right, bottom in views:
        grid = np.zeros((side, side, NUM_CELL_LABELS), dtype=np.int64)
        for line in record.lines:
            middle = (line.box[1] + line.box[3]) / 2 / height
            band = int(np.floor((middle - top) / (bottom - top) * side * BANDS))
            if not 0 <= band < side * BANDS:
                continue
            for glyph in line.glyphs:
                across = ((glyph.box[0] + glyph.box[2]) / 2 / width - left) / (right - left) * side
                column, code = int(np.floor(across)), LETTERS.find(glyph.char) + 1 or UNKNOWN
                if not 0 <= column < side:
                    continue
                slots = grid[band // BANDS, column, band % BANDS * RUN :][:RUN]
                # The quarter of the cell in which the character stands, or the next free one.
                free = [place for place in range(int((across - column) * RUN), RUN) if slots[place] == 0]
                if free:
                    slots[free[0]] = code
        for thing in record.things:
            x0, x1 = ((edge / width - left) / (right - left) * side for edge in (thing.box[0], thing.box[2]))
            y0, y1 = ((edge / height - top) / (bottom - top) * side for edge in (thing.box[1], thing.box[3]))
            # Cells whose centre lies in the thing, and the cell of its own centre.
            columns = np.arange(side) + 0.5
            inside_x = (columns > x0) & (columns < x1) | (np.floor(columns) == np.floor((x0 + x1) / 2))
            inside_y = (columns > y0) & (columns < y1) | (np.floor(columns) == np.floor((y0 + y1) / 2))
            spot = inside_y[:, None] & inside_x[None, :]
            grid[spot, -2] = SHAPES.index(thing.shape) + 1
            grid[spot, -1] = COLOURS.index(thing.colour) + 1
        labels.append(grid.reshape(side * side, NUM_CELL_LABELS))
    return labels


class CellHead(nn.Module):
    """The throw-away head of phase ``cells``: one linear layer per label column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [len(LETTERS) + 1] * NUM_SLOTS + [len(SHAPES) + 1, len(COLOURS) + 1]
        self.out = nn.Linear(width, sum(self.sizes))

    def forward(
        self, tokens: Float[Tensor, "slices queries dim"], labels: Int64[Tensor, "slices queries labels"]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Return the loss and the accuracy on cells where something is."""
        loss = tokens.new_zeros(())
        scores: dict[str, list[Tensor]] = {"characters": [], "shapes": [], "colours": []}
        normal = F.layer_norm(tokens, tokens.shape[-1:])  # visual tokens are as small as word embeddings
        for column, logits in enumerate(self.out(normal).flatten(0, 1).split(self.sizes, dim=-1)):
            target = labels[..., column].flatten()
            weight = torch.ones(logits.shape[-1])
            weight[0] = 0.1  # most slots are empty
            loss = loss + F.cross_entropy(logits.float(), target, weight=weight, ignore_index=UNKNOWN)
            there = target > 0
            kind = "characters" if column < NUM_SLOTS else ("shapes", "colours")[column - NUM_SLOTS]
            scores[kind].append((logits.argmax(-1) == target)[there])
        return loss / len(self.sizes), {
            kind: float(torch.cat(hits).float().mean()) for kind, hits in scores.items() if torch.cat(hits).numel()
        }


class GatherHead(nn.Module):
    """The throw-away head of phase ``gather``: each cell is named from its patches, added up as a query will add them.

    Attention can only add up what the patches of a cell say, so the tower has to keep apart what lies left and
    right, above and below. While attention learns too, it never comes to that: to read one patch of the cell and
    leave the others is better at first (``docs/log.md``).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cells = CellHead(heads * width)
        self.place = nn.Linear(width, CODE)

    def forward(
        self,
        patches: Float[Tensor, "slices patches dim"],
        places: Float[Tensor, "slices patches code"],
        is_real: Bool[Tensor, "slices patches"],
        labels: Int64[Tensor, "slices queries labels"],
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Return the loss, the accuracy on cells where something is, and R squared of the place."""
        asked = query_codes(labels.shape[1], self.heads)
        scores = SHARPNESS * torch.einsum("hqc,spc->shqp", asked, places)
        shares = scores.masked_fill(~is_real[:, None, None], -torch.inf).softmax(-1)
        read = shares @ patches[:, None]
        loss, named = self.cells(read.transpose(1, 2).flatten(2), labels)
        missed = F.mse_loss(self.place(patches[is_real]), places[is_real])
        return loss + missed, named | {"place_r2": 1 - 2 * float(missed.detach())}


class CellTables(nn.Module):
    """The stand-in for eyes of phase ``layout``: a visual token is the sum of what its labels look up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [len(LETTERS) + 1] * NUM_SLOTS + [len(SHAPES) + 1, len(COLOURS) + 1]
        self.tables = nn.ModuleList(nn.Embedding(size, width, padding_idx=0) for size in sizes)
        self.ground = nn.Parameter(torch.zeros(width))
        """Added to every token, so that an empty cell is not nothing."""

    @torch.no_grad()
    def initialise(self, embeddings: Float[Tensor, "vocab dim"], tokenizer: Tokenizer) -> None:
        """Begin with the words that the language model knows, each slot with a mark of its own."""
        scale = float(embeddings.std())
        for slot, table in enumerate(self.tables):
            assert isinstance(table, nn.Embedding)
            words = LETTERS if slot < NUM_SLOTS else (SHAPES, COLOURS)[slot - NUM_SLOTS]
            mark = torch.randn(embeddings.shape[1]) * scale
            for code, word in enumerate(words, start=1):
                known = torch.stack([embeddings[token] for token in tokenizer.encode(word).tolist()]).mean(0)
                table.weight[code] = known + 0.5 * mark
        self.ground.normal_(0.0, scale)

    def forward(self, labels: Int64[Tensor, "slices queries labels"]) -> Float[Tensor, "slices queries dim"]:
        """Return visual tokens as perfect eyes would give them."""
        labels = labels.clamp(min=0)  # what has no name is not seen
        looked_up = [table(labels[..., slot]) for slot, table in enumerate(self.tables)]
        return torch.stack(looked_up).sum(0) + self.ground


@torch.no_grad()
def align(
    before: Float[Tensor, "tokens dim"], wanted: Float[Tensor, "tokens dim"], ridge: float = 1e-3
) -> tuple[Float[Tensor, "dim dim"], float]:
    """Return the matrix that best turns the resampler's normalised output into ``wanted``, and R squared."""
    x, y = before.double(), wanted.double()
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    matrix = torch.linalg.solve(gram, x.T @ y)
    rest = float(((y - x @ matrix) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
    return matrix.float(), 1 - rest
