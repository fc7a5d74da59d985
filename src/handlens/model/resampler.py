"""The resampler: one cross-attention layer that compresses a slice to a fixed number of visual tokens.

Boundary: patch vectors and key positions in, visual tokens out; official weight names.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from handlens.config import ResamplerConfig
from handlens.core.patches import key_positions
from handlens.model.attention import attend


class Resampler(nn.Module):
    """One cross-attention layer whose queries are learned and whose keys are patches.

    Source: arXiv 2408.01800, section 3.2; the exact form is that of the released code: no residual, no
    feed-forward, positions on the keys only (and on the queries in 1.0 and 2.0).
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.query = nn.Parameter(torch.zeros(config.num_queries, width))
        self.kv_proj = nn.Linear(config.vision_width, width, bias=False)
        self.attn = nn.MultiheadAttention(width, config.num_heads)  # holds the official names; computed below
        self.ln_q = nn.LayerNorm(width, eps=config.norm_eps)
        self.ln_kv = nn.LayerNorm(width, eps=config.norm_eps)
        self.ln_post = nn.LayerNorm(width, eps=config.norm_eps)
        self.proj = nn.Parameter(torch.zeros(width, width))
        if config.query_positions:
            side = round(config.num_queries**0.5)
            self.pos_embed = nn.Parameter(
                torch.from_numpy(key_positions(side, side, width)).clone(), requires_grad=False
            )

    def forward(
        self,
        patches: Float[Tensor, "slices patches vision_dim"],
        positions: Float[Tensor, "slices patches dim"],
        is_real: Bool[Tensor, "slices patches"] | None = None,
    ) -> Float[Tensor, "slices queries dim"]:
        """Compress; ``is_real`` marks patches that came from the picture, not from padding."""
        return self.compress(patches, positions, is_real) @ self.proj

    def enlarged_table(self, rows: int, columns: int) -> Float[Tensor, "patches dim"]:
        """Return the stored table interpolated to a slice: the key positions of 1.0."""
        side = round(self.config.num_queries**0.5)
        table = self.pos_embed.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        enlarged = F.interpolate(table, size=(rows, columns), mode="bicubic", align_corners=False)
        return enlarged[0].flatten(1).T.to(self.pos_embed.dtype)

    def compress(
        self,
        patches: Float[Tensor, "slices patches vision_dim"],
        positions: Float[Tensor, "slices patches dim"],
        is_real: Bool[Tensor, "slices patches"] | None = None,
    ) -> Float[Tensor, "slices queries dim"]:
        """Return the normalised output of the attention, before the last projection."""
        values = self.ln_kv(self.kv_proj(patches))
        query = self.ln_q(self.query)
        if self.config.query_positions:
            query = query + self.pos_embed
        q_weight, k_weight, v_weight = self.attn.in_proj_weight.chunk(3)
        q_bias, k_bias, v_bias = self.attn.in_proj_bias.chunk(3)
        heads = self.config.num_heads
        q = F.linear(query, q_weight, q_bias).unflatten(-1, (heads, -1)).transpose(0, 1)
        k = F.linear(values + positions, k_weight, k_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        v = F.linear(values, v_weight, v_bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        mask = None if is_real is None else is_real[:, None, None, :]
        out = attend(q.expand(len(patches), -1, -1, -1), k, v, mask)
        out = F.linear(out.transpose(1, 2).flatten(2), self.attn.out_proj.weight, self.attn.out_proj.bias)
        return self.ln_post(out)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Set fresh weights as the released code does (queries 0.02, ``proj`` width ** -0.5)."""
        width = self.config.width
        self.query.normal_(0.0, 0.02, generator=generator)
        self.kv_proj.weight.normal_(0.0, self.config.vision_width**-0.5, generator=generator)
        self.attn.in_proj_weight.normal_(0.0, width**-0.5, generator=generator)
        self.attn.out_proj.weight.normal_(0.0, width**-0.5, generator=generator)
        self.attn.in_proj_bias.zero_()
        self.attn.out_proj.bias.zero_()
        self.proj.normal_(0.0, width**-0.5, generator=generator)
        for norm in (self.ln_q, self.ln_kv, self.ln_post):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
