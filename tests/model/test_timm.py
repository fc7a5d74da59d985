"""The tower of 1.0 and 2.0: position tables of any shape, padding, and its exact GELU."""

import pytest
import torch
import torch.nn.functional as F

from handlens.config import VisionConfig
from handlens.model.timm import TimmTower


@pytest.fixture(scope="module")
def tower() -> TimmTower:
    tower = TimmTower(VisionConfig(width=48, mlp_width=64, num_layers=2, num_heads=3, table_side=9))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in tower.parameters():
            weight.normal_(0.3 if weight.ndim == 1 else 0.0, 0.3, generator=draw)
    return tower.eval()


def test_names_are_those_of_timm(tower):
    names = set(tower.state_dict())
    assert {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"} < names
    assert {name.removeprefix("blocks.1.") for name in names if name.startswith("blocks.1.")} == {
        f"{part}.{kind}"
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }


@torch.no_grad()
def test_a_table_of_its_own_shape_is_returned_unchanged(tower):
    assert torch.equal(tower.positions(9, 9), tower.pos_embed[0])
    assert tower.positions(4, 15).shape == (60, 48)


@torch.no_grad()
def test_a_smooth_table_stays_smooth_when_it_is_resized():
    tower = TimmTower(VisionConfig(width=2, mlp_width=4, num_layers=1, num_heads=1, table_side=9))
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    tower.pos_embed.copy_(torch.stack([rows, columns], -1).reshape(1, 81, 2))
    resized = tower.positions(18, 9).reshape(18, 9, 2)
    # Twice as many rows: centres lie at (i + 0.5) / 2 - 0.5; borders are clamped and left out.
    expected = (torch.arange(18.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(resized[4:14, 4, 0], expected[4:14], rtol=0, atol=1e-4)
    torch.testing.assert_close(resized[8, :, 1], torch.arange(9.0), rtol=0, atol=1e-4)


@torch.no_grad()
def test_padded_slices_equal_each_alone(tower):
    grids = ((3, 5), (8, 8), (1, 9))
    draw = torch.Generator().manual_seed(2)
    patches = torch.randn(3, 64, 588, generator=draw)
    is_real = torch.arange(64) < torch.tensor([rows * columns for rows, columns in grids])[:, None]
    together = tower(patches, grids, is_real)
    for number, grid in enumerate(grids):
        count = grid[0] * grid[1]
        alone = tower(patches[number : number + 1, :count], (grid,))
        torch.testing.assert_close(together[number, :count], alone[0], rtol=0, atol=1e-4)


@torch.no_grad()
def test_its_gelu_is_exact(tower):
    mlp, x = tower.blocks[0].mlp, torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(3))
    wide = mlp.fc1(x)
    exact = mlp.fc2(wide * 0.5 * (1 + torch.erf(wide / 2**0.5)))
    torch.testing.assert_close(mlp(x), exact, rtol=0, atol=1e-5)
    assert not torch.equal(mlp(x), mlp.fc2(F.gelu(wide, approximate="tanh")))
