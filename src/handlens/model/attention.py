"""Scaled dot-product attention in the form that is fastest where it runs.

Boundary: queries, keys and values in, what was read out; the same function everywhere, up to rounding.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def attend(
    query: Float[Tensor, "batch heads asked size"],
    key: Float[Tensor, "batch heads read size"],
    value: Float[Tensor, "batch heads read size"],
    mask: Bool[Tensor, "batch 1 1 read"] | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "batch heads asked size"]:
    """Return what each query reads; places where ``mask`` is False are never read.

    torch's fused kernel does not use the bfloat16 units of a CPU. There, two plain products and a softmax take
    half of its time (``docs/results.md``); they hold all scores at once, so pieces stay small: slices, conversations.
    """
    if value.device.type != "cpu" or value.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal, scale=scale)
    # Turned by their places, queries and keys come in float32 where values do not.
    query = (query * (query.shape[-1] ** -0.5 if scale is None else scale)).to(value.dtype)
    scores = query @ key.to(value.dtype).transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores.softmax(-1) @ value
