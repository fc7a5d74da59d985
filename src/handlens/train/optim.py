"""Optimisers: Muon for the matrices inside layers, AdamW for tables, vectors and heads.

Boundary: named parameters in, step functions out. torch's own Muon always computes in bfloat16, which is a hundred
times slower than float32 on CPUs without bfloat16 units; this one computes as the phase does. It needs whole
matrices: where weights are shares (FSDP2), slopes are gathered and every process computes the whole update.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from handlens.train.distributed import whole
from handlens.train.phases import Phase

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz coefficients that lift small singular values fastest (Muon, Jordan et al. 2024)."""


def orthogonalise(
    matrix: Float[Tensor, "rows columns"], steps: int = 5, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "rows columns"]:
    """Return roughly ``U V^T`` of ``U S V^T``: every direction gets the same length (0.7 to 1.2)."""
    a, b, c = _QUINTIC
    x = (matrix / (matrix.norm() + 1e-7)).to(dtype)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if is_tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, scaled to the size of an AdamW update."""

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        """Of the arithmetic that makes directions equally long."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight once (Nesterov momentum)."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                slope = whole(weight.grad.lerp(state["momentum"], group["momentum"]))
                update = orthogonalise(slope, dtype=self.dtype)
                if isinstance(weight, DTensor):
                    # Every process has the whole update; it keeps its own rows.
                    mesh, places = weight.device_mesh, weight.placements
                    update = distribute_tensor(update, mesh, places, src_data_rank=None)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-0.2 * group["lr"] * max(weight.shape) ** 0.5)


def build_optimisers(
    named: list[tuple[str, nn.Parameter]], phase: Phase, dtype: torch.dtype = torch.float32
) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers of a phase by name; one learning rate serves both. ``dtype`` is that of products."""
    matrices, tables, vectors = [], [], []
    for name, weight in named:
        inside = ("layers." in name or name.startswith("resampler.")) and "query" not in name
        if weight.ndim < 2:
            vectors.append(weight)
        elif weight.ndim == 2 and inside and phase.optimiser == "muon":
            matrices.append(weight)
        else:
            tables.append(weight)
    optimisers: dict[str, torch.optim.Optimizer] = {}
    if matrices:
        optimisers["muon"] = Muon(matrices, lr=phase.rate, weight_decay=phase.weight_decay, dtype=dtype)
    optimisers["adamw"] = torch.optim.AdamW(
        [{"params": tables, "weight_decay": phase.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=phase.rate,
        betas=(0.9, phase.beta2),
        fused=True,
    )
    return optimisers
