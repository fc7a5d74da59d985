"""The vision tower: a ViT that reads slices of any shape, with positions fitted to each.

Boundary: patches and position ids in (from ``core/patches.py``), patch vectors out; official weight names.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from handlens.config import VisionConfig
from handlens.core.patches import key_positions
from handlens.model.attention import attend


class Embeddings(nn.Module):
    """Patch projection and the learned position table."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        # A convolution only in the file: its weight is applied as one matrix to flattened patches.
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px)
        self.position_embedding = nn.Embedding(config.table_side**2, config.width)

    def forward(
        self, patches: Float[Tensor, "slices patches pixels"], position_ids: Int[Tensor, "slices patches"]
    ) -> Float[Tensor, "slices patches dim"]:
        """Return projected patches with their positions added."""
        weight = self.patch_embedding.weight.flatten(1)
        return F.linear(patches, weight, self.patch_embedding.bias) + self.position_embedding(position_ids)


class SelfAttention(nn.Module):
    """Full attention among the patches of one slice."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(
        self, x: Float[Tensor, "slices patches dim"], is_real: Bool[Tensor, "slices patches"] | None
    ) -> Float[Tensor, "slices patches dim"]:
        """Attend; padding is never read."""
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mask = None if is_real is None else is_real[:, None, None, :]
        out = attend(q, k, v, mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with the tanh form of GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Float[Tensor, "slices patches dim"]) -> Float[Tensor, "slices patches dim"]:
        """Widen, bend, narrow."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm attention and MLP with residuals."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self, x: Float[Tensor, "slices patches dim"], is_real: Bool[Tensor, "slices patches"] | None
    ) -> Float[Tensor, "slices patches dim"]:
        """One transformer layer."""
        x = x + self.self_attn(self.layer_norm1(x), is_real)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))

    def forward(
        self, x: Float[Tensor, "slices patches dim"], is_real: Bool[Tensor, "slices patches"] | None
    ) -> Float[Tensor, "slices patches dim"]:
        """Run every block."""
        for layer in self.layers:
            x = layer(x, is_real)
        return x


class VisionTower(nn.Module):
    """SigLIP-style encoder with the weight names of the official checkpoints 2.5 to 4.5.

    Source: arXiv 2408.01800, section 3.2 (slice encoding).
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        patches: Float[Tensor, "slices patches pixels"],
        position_ids: Int[Tensor, "slices patches"],
        is_real: Bool[Tensor, "slices patches"] | None = None,
    ) -> Float[Tensor, "slices patches dim"]:
        """Return one vector per patch; ``is_real`` is False at padding, None when there is none."""
        x = self.encoder(self.embeddings(patches, position_ids), is_real)
        return self.post_layernorm(x)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Set fresh weights; positions begin as the sin-cos code of their place in the table."""
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                fan_in = weight[0].numel()
                weight.normal_(0.0, fan_in**-0.5, generator=generator)
        for layer in self.encoder.layers:
            depth = (2 * self.config.num_layers) ** -0.5
            assert isinstance(layer, Block)
            layer.self_attn.out_proj.weight.mul_(depth)
            layer.mlp.fc2.weight.mul_(depth)
        side = self.config.table_side
        table = torch.from_numpy(key_positions(side, side, self.config.width))
        self.embeddings.position_embedding.weight.copy_(0.5 * table)
