"""The vision tower of 1.0 and 2.0: a timm ViT whose position table is resized to every slice.

Boundary: patches and grids in, patch vectors out; the weight names are those of timm.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from handlens.config import VisionConfig
from handlens.core.patches import key_positions

Grids = tuple[tuple[int, int], ...]
"""Rows and columns of patches, one pair per slice."""


class PatchEmbed(nn.Module):
    """Patch projection."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        # A convolution only in the file: its weight is applied as one matrix to flattened patches.
        self.proj = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px)

    def forward(self, patches: Float[Tensor, "slices patches pixels"]) -> Float[Tensor, "slices patches dim"]:
        """Return projected patches."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Full attention among the patches of one slice; queries, keys and values are stored as one matrix."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(
        self, x: Float[Tensor, "slices patches dim"], is_real: Bool[Tensor, "slices patches"] | None
    ) -> Float[Tensor, "slices patches dim"]:
        """Attend; padding is never read."""
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        mask = None if is_real is None else is_real[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Float[Tensor, "slices patches dim"]) -> Float[Tensor, "slices patches dim"]:
        """Widen, bend, narrow."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm attention and MLP with residuals."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self, x: Float[Tensor, "slices patches dim"], is_real: Bool[Tensor, "slices patches"] | None
    ) -> Float[Tensor, "slices patches dim"]:
        """One transformer layer."""
        x = x + self.attn(self.norm1(x), is_real)
        return x + self.mlp(self.norm2(x))


class TimmTower(nn.Module):
    """SigLIP encoder with the weight names of the 1.0 and 2.0 checkpoints.

    The released code drops the last of 27 blocks and keeps the norm after it; ``config.num_layers`` counts the
    blocks that are left.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.table_side**2, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        patches: Float[Tensor, "slices patches pixels"],
        grids: Grids,
        is_real: Bool[Tensor, "slices patches"] | None = None,
    ) -> Float[Tensor, "slices patches dim"]:
        """Return one vector per patch; ``is_real`` is False at padding, None when there is none."""
        x = self.patch_embed(patches)
        tables = [F.pad(table := self.positions(*grid), (0, 0, 0, x.shape[1] - len(table))) for grid in grids]
        x = x + torch.stack(tables)
        for block in self.blocks:
            x = block(x, is_real)
        return self.norm(x)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "patches dim"]:
        """Return the table resized to a slice by antialiased bicubic interpolation in float32."""
        side = self.config.table_side
        if (rows, columns) == (side, side):
            return self.pos_embed[0]
        table = self.pos_embed.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(table, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
        return resized[0].flatten(1).T.to(self.pos_embed.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Set fresh weights; positions begin as the sin-cos code of their place in the table."""
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
        side = self.config.table_side
        self.pos_embed.copy_(0.5 * torch.from_numpy(key_positions(side, side, self.config.width))[None])
