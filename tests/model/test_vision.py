"""The vision tower: padding and positions; test_golden.py has the official numbers."""

import numpy as np
import torch

from handlens.config import VisionConfig
from handlens.core.patches import position_ids, to_patches
from handlens.model.vision import VisionTower

SHAPES = ((3, 5), (8, 8), (1, 9))


@torch.no_grad()
def test_padded_slices_equal_each_alone(model, slices, config):
    together = model.vpm(slices.patches, slices.position_ids, slices.is_real)
    for number, (rows, columns) in enumerate(SHAPES):
        count = rows * columns
        by_itself = model.vpm(
            slices.patches[number : number + 1, :count], slices.position_ids[number : number + 1, :count]
        )
        torch.testing.assert_close(together[number, :count], by_itself[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_is_never_read(model, slices):
    changed = torch.where(slices.is_real[..., None], slices.patches, torch.full_like(slices.patches, 1e3))
    real = slices.is_real
    before = model.vpm(slices.patches, slices.position_ids, real)[real]
    after = model.vpm(changed, slices.position_ids, real)[real]
    assert torch.equal(before, after)


@torch.no_grad()
def test_a_row_of_patches_is_not_a_column_of_them(model):
    patches = torch.randn(1, 6, 588, generator=torch.Generator().manual_seed(1))
    as_row = torch.from_numpy(position_ids(1, 6, table_side=20))[None]
    as_column = torch.from_numpy(position_ids(6, 1, table_side=20))[None]
    difference = (model.vpm(patches, as_row) - model.vpm(patches, as_column)).abs().max()
    assert difference > 1e-2
    # Each row of the table is used once, so shuffling patches with their positions shuffles the output.
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = model.vpm(patches[:, order], as_row[:, order])
    torch.testing.assert_close(shuffled, model.vpm(patches, as_row)[:, order], rtol=0, atol=1e-5)


def test_the_patch_projection_is_the_convolution_of_the_official_file(model):
    pixels = np.random.default_rng(2).normal(size=(3, 42, 28)).astype(np.float32)
    embeddings = model.vpm.embeddings
    with torch.no_grad():
        convolved = embeddings.patch_embedding(torch.from_numpy(pixels)[None])[0].flatten(1).T
        ids = torch.zeros(1, 6, dtype=torch.int64)
        ours = embeddings(torch.from_numpy(to_patches(pixels))[None], ids)[0] - embeddings.position_embedding.weight[0]
    torch.testing.assert_close(ours, convolved, rtol=0, atol=1e-5)


def test_fresh_positions_tell_neighbours_from_strangers():
    tower = VisionTower(VisionConfig(width=128, mlp_width=160, num_layers=1, num_heads=2, table_side=20))
    tower.initialise(torch.Generator().manual_seed(0))
    table = torch.nn.functional.normalize(tower.embeddings.position_embedding.weight, dim=1)
    middle = 10 * 20 + 10
    likeness = (table @ table[middle]).reshape(20, 20)
    assert likeness.argmax() == middle
    assert likeness[10, 11] > likeness[10, 15]
    assert likeness[11, 10] > likeness[15, 10]


def test_equal_seeds_give_equal_weights():
    config = VisionConfig(width=128, mlp_width=160, num_layers=1, num_heads=2, table_side=20)
    towers = [VisionTower(config) for _ in range(3)]
    for tower, seed in zip(towers, (1, 1, 2), strict=True):
        tower.initialise(torch.Generator().manual_seed(seed))
    name = "encoder.layers.0.mlp.fc1.weight"
    one, same, other = (tower.state_dict()[name] for tower in towers)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
