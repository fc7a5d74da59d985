"""Attention for packed sequences on a GPU: one kernel call for all segments.

Boundary: registered with transformers under ``segments_flash``; bfloat16 or float16 only.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "segments_flash"


def borders(segment_lengths: tuple[int, ...], device: torch.device) -> Int[Tensor, "n"]:
    """Return where each segment begins, and the end of the last.

    >>> borders((3, 2), torch.device("cpu")).tolist()
    [0, 3, 5]
    """
    return torch.tensor([0, *segment_lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def flash_segments(
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
    """Return causal attention within each of the consecutive segments of one packed row."""
    starts, longest = borders(segment_lengths, query.device), max(segment_lengths)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = varlen_attn(
        q, k, v, starts, starts, longest, longest,
        scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out[None], None


AttentionInterface.register(NAME, flash_segments)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
