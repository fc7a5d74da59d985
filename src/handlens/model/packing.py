"""Attention for packed sequences: each segment attends to itself, causally.

Boundary: registered with transformers under ``segments``; the lengths travel as a keyword of ``forward``.
A loop over segments does a sixth of the work of a dense block mask on a CPU.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from handlens.model.attention import attend

NAME = "segments"


def segment_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads tokens size"],
    value: Float[Tensor, "1 kv_heads tokens size"],
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segment_lengths: tuple[int, ...],
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 tokens heads size"], None]:
    """Return attention within each of the consecutive segments of one packed row."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = [
        attend(q, k, v, is_causal=True, scale=scaling)
        for q, k, v in zip(*(x.split(segment_lengths, dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, segment_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
