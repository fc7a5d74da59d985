"""The loss of next words, in pieces where the vocabulary is large.

Boundary: hidden states of the places that have a target in, a sum and hits out.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PIECE = 1 << 25
"""Logits held at a time: 32 million numbers are 128 MB, and as many again for their slopes."""


def next_word_loss(
    head: nn.Module,
    hidden: Float[Tensor, "n dim"],
    targets: Int64[Tensor, "n"],
    weights: Float[Tensor, "n"] | None = None,
    *,
    piece: int = PIECE,
) -> tuple[Float[Tensor, ""], Bool[Tensor, "n"]]:
    """Return the summed cross-entropy in nats (each times its weight), and where the most likely word is right.

    The logits of all places at once would be the largest thing of a step (4,096 places of 128,256 words: 2 GB).
    Where they are more than ``piece`` numbers they are made a piece at a time, and again on the way back.
    """
    vocabulary = int(getattr(head, "out_features", 0)) or int(head.weight.shape[0])  # type: ignore[index]
    rows = max(piece // vocabulary, 1)
    if len(hidden) <= rows:
        return _piece(head, hidden, targets, weights)
    total, hits = hidden.new_zeros((), dtype=torch.float32), []
    shares = [None] * -(-len(hidden) // rows) if weights is None else weights.split(rows)
    for some, words, share in zip(hidden.split(rows), targets.split(rows), shares, strict=True):
        part, hit = checkpoint(_piece, head, some, words, share, use_reentrant=False)
        total = total + part
        hits.append(hit)
    return total, torch.cat(hits)


def _piece(head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    hits = logits.detach().argmax(-1) == targets
    if weights is None:
        return F.cross_entropy(logits.float(), targets, reduction="sum"), hits
    return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum(), hits
