"""Direct preference optimisation: how much more the policy prefers an answer than the reference does.

Boundary: log-probabilities in, one loss for each pair out; ``preferences.py`` makes them from pictures and words.

Sources: sigmoid, arXiv 2305.18290, equation 7; ipo, arXiv 2310.12036, equation 17, over mean log-probabilities; length,
sigmoid over mean log-probabilities; segments, RLHF-V, arXiv 2312.00849, equation 4.
"""

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from handlens.errors import SettingError
from handlens.train.losses import PIECE

Form = Literal["sigmoid", "ipo", "length"]
Reference = Literal["stored", "adapter"]


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """Settings of the loss."""

    form: Form = "sigmoid"
    beta: float = 0.1
    """How much a step away from the reference costs; with ``ipo`` and ``length`` the unit is nats per token."""
    sft: float = 0.0
    """Weight of the next-token loss of preferred answers beside it."""
    reference: Reference = "stored"
    """``stored``: computed once, before the first step; ``adapter``: the same model with its adapters off."""
    segment_weight: float = 1.0
    """Weight of tokens that a correction changed, against 1 for the others (gamma of RLHF-V, which has 5)."""

    def __post_init__(self) -> None:
        for name, value, is_good in (
            ("beta", self.beta, self.beta > 0),
            ("sft", self.sft, self.sft >= 0),
            ("segment_weight", self.segment_weight, self.segment_weight > 0),
        ):
            if not is_good:
                raise SettingError(f"{name} is {value:g}; it must be {'0 or more' if name == 'sft' else 'above 0'}")


def preference_loss(
    policy: Float[Tensor, "2 count"],
    reference: Float[Tensor, "2 count"],
    sizes: Float[Tensor, "2 count"],
    how: Dpo,
) -> Float[Tensor, "count"]:
    """Return the loss of each pair; row 0 is the preferred answers, row 1 the rejected ones.

    ``policy`` and ``reference`` are log-probabilities of whole answers in nats, summed with their weights, and
    ``sizes`` the sums of those weights.
    """
    ratios = policy - reference
    if how.form != "sigmoid":
        ratios = ratios / sizes.clamp(min=1e-6)
    preferred = ratios[0] - ratios[1]
    if how.form == "ipo":
        return (preferred - 1 / (2 * how.beta)) ** 2
    return -F.logsigmoid(how.beta * preferred)


def word_logprobs(
    head: nn.Module, hidden: Float[Tensor, "n dim"], targets: Int64[Tensor, "n"], *, piece: int = PIECE
) -> Float[Tensor, "n"]:
    """Return the log-probability (nats) of each target; logits are made a piece at a time where they are many."""
    vocabulary = int(getattr(head, "out_features", 0)) or int(head.weight.shape[0])  # type: ignore[index]
    rows = max(piece // vocabulary, 1)
    if len(hidden) <= rows:
        return _logprobs(head, hidden, targets)
    return torch.cat(
        [
            checkpoint(_logprobs, head, some, words, use_reentrant=False)
            for some, words in zip(hidden.split(rows), targets.split(rows), strict=True)
        ]
    )


def _logprobs(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(head(hidden).float(), targets, reduction="none")


def segment_weights(
    chosen: Int64[np.ndarray, "n"], rejected: Int64[np.ndarray, "count"], weight: float
) -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "count"]]:
    """Return the weight of every token: 1 where both answers agree, ``weight`` where one corrects the other.

    >>> [row.tolist() for row in segment_weights(np.array([5, 6, 7]), np.array([5, 9, 9, 7]), 4.0)]
    [[1.0, 4.0, 1.0], [1.0, 4.0, 4.0, 1.0]]
    """
    first = np.full(len(chosen), weight, dtype=np.float32)
    second = np.full(len(rejected), weight, dtype=np.float32)
    matcher = SequenceMatcher(a=chosen.tolist(), b=rejected.tolist(), autojunk=False)
    for start, other, size in matcher.get_matching_blocks():
        first[start : start + size] = 1.0
        second[other : other + size] = 1.0
    return first, second
