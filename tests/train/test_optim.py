"""Muon, and which weights it gets."""

import pytest
import torch
from torch import nn

from handlens.train.learner import freeze
from handlens.train.optim import Muon, build_optimisers, orthogonalise


@pytest.mark.parametrize("shape", [(64, 64), (48, 128), (128, 48), (192, 20)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_every_direction_gets_about_the_same_length(shape, scale):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
    lengths = torch.linalg.svdvals(orthogonalise(matrix))
    # A square random matrix has directions of almost no length, which five steps cannot lift.
    lengths = lengths[: int(0.9 * len(lengths))]
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3


def test_directions_are_kept():
    draw = torch.Generator().manual_seed(1)
    u, _ = torch.linalg.qr(torch.randn(32, 8, generator=draw))
    v, _ = torch.linalg.qr(torch.randn(16, 8, generator=draw))
    matrix = u @ torch.diag(torch.linspace(0.5, 2.0, 8)) @ v.T
    agreement = u.T @ orthogonalise(matrix) @ v
    assert (agreement - torch.diag(agreement.diagonal())).abs().max() < 1e-4
    assert agreement.diagonal().min() > 0.6


def test_no_gradient_is_no_update():
    assert orthogonalise(torch.zeros(4, 6)).eq(0).all()


def test_first_step_by_hand():
    """Momentum 0.95 from zero, Nesterov: the update points along the gradient, 0.2 * rate * sqrt(longer side) long."""
    weight = nn.Parameter(torch.eye(16))
    optimiser = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = 3 * torch.eye(16)
    optimiser.step()
    lengths = ((1 - 0.1 * 0.5) * torch.eye(16) - weight.detach()) / (0.2 * 0.1 * 4)
    torch.testing.assert_close(lengths, orthogonalise(torch.eye(16)), rtol=0, atol=1e-5)


def test_muon_walks_down():
    draw = torch.Generator().manual_seed(2)
    goal = torch.randn(12, 20, generator=draw)
    weight = nn.Parameter(torch.zeros(12, 20))
    optimiser = Muon([weight], lr=0.1)
    before = float((weight.detach() - goal).norm())
    for _ in range(80):
        weight.grad = weight.detach() - goal
        optimiser.step()
    assert float((weight.detach() - goal).norm()) < 0.5 * before


def test_every_learning_weight_has_one_optimiser(fresh, sft):
    model = fresh()
    named = freeze(model, sft)
    optimisers = build_optimisers(named, sft)
    names = {id(weight): name for name, weight in named}
    given = {
        kind: {names[id(weight)] for group in optimiser.param_groups for weight in group["params"]}
        for kind, optimiser in optimisers.items()
    }
    assert given["muon"] | given["adamw"] == set(names.values())
    assert not given["muon"] & given["adamw"]
    assert {
        "resampler.query", "vpm.embeddings.position_embedding.weight", "vpm.embeddings.patch_embedding.weight",
        "llm.model.embed_tokens.weight", "resampler.ln_q.bias",
    } <= given["adamw"]  # fmt: skip
    assert {
        "resampler.kv_proj.weight", "resampler.proj", "vpm.encoder.layers.0.mlp.fc1.weight",
        "llm.model.layers.1.self_attn.o_proj.weight",
    } <= given["muon"]  # fmt: skip
    tables, vectors = optimisers["adamw"].param_groups
    assert tables["weight_decay"] == sft.weight_decay
    assert vectors["weight_decay"] == 0.0
