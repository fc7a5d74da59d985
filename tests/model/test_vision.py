"""The vision tower: padding, positions, and the official numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from handlens.config import HandlensConfig, ResamplerConfig, VisionConfig
from handlens.core.patches import key_positions, normalise, position_ids, to_patches, to_strip
from handlens.core.slicing import cut, plan_slices
from handlens.model.resampler import Resampler
from handlens.model.vision import VisionTower

GOLDEN = Path(__file__).parents[1] / "golden" / "2.6"
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


# ---- the official code -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> tuple[VisionTower, Resampler]:
    """Tower and resampler with the golden weights, loaded strictly under their official names."""
    stored = {name: tensor.float() for name, tensor in load_file(GOLDEN / "model.safetensors").items()}
    rows = stored.pop("vpm.embeddings.position_embedding.rows").long()
    table = torch.full((70 * 70, 144), torch.nan)
    table[rows] = stored.pop("vpm.embeddings.position_embedding.some_rows")
    stored["vpm.embeddings.position_embedding.weight"] = table
    tower = VisionTower(VisionConfig(width=144, mlp_width=288, num_layers=3, num_heads=2))
    resampler = Resampler(ResamplerConfig(num_queries=64, width=256, vision_width=144))
    for module, prefix in ((tower, "vpm."), (resampler, "resampler.")):
        module.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
        )
    return tower.eval(), resampler.eval()


@pytest.mark.parametrize(("name", "shape"), [("square", (32, 32)), ("image0", (25, 40))])
def test_equals_the_official_code_from_file_to_visual_tokens(official, name, shape):
    """Slicing, pixels, position ids, tower and resampler against MiniCPM-V 2.6."""
    tower, resampler = official
    expected = {
        key.removeprefix(f"{name}."): tensor for key, tensor in load_file(GOLDEN / "expected.safetensors").items()
        if key.startswith(f"{name}.")
    }  # fmt: skip
    with Image.open(GOLDEN / f"{name}.png") as file:
        picture = file.convert("RGB")
    plan = plan_slices(*picture.size)
    assert plan.patches == [shape]
    pixels = normalise(cut(picture, plan)[0])

    numbers = to_strip(pixels).reshape(-1)[expected["pixel_idx"][:, 1:].numpy() @ strides(shape)]
    assert np.array_equal(numbers, expected["pixel_val"].numpy())

    ids = position_ids(*shape)
    assert ids.tolist() == expected["vit_position_ids"].tolist()

    patches = torch.from_numpy(to_patches(pixels))[None]
    keys = torch.from_numpy(key_positions(*shape, 256))[None]
    with torch.no_grad():
        seen = tower(patches, torch.from_numpy(ids)[None])
        tokens = resampler(seen, keys)
    at = expected["vision_idx"].long().unbind(1)
    torch.testing.assert_close(seen[at], expected["vision_val"], rtol=0, atol=1e-4)
    torch.testing.assert_close(tokens, expected["tokens"], rtol=0, atol=1e-4)


def strides(shape: tuple[int, int]) -> np.ndarray:
    """Steps of channel, row and column in a strip of [3, 14, patches * 14]."""
    length = shape[0] * shape[1] * 14
    return np.array([14 * length, length, 1])


@torch.no_grad()
def test_the_official_numbers_hold_in_a_padded_batch(official):
    """Both pictures in one batch: 1,024 and 1,000 patches."""
    tower, resampler = official
    expected = load_file(GOLDEN / "expected.safetensors")
    shapes = {"square": (32, 32), "image0": (25, 40)}
    patches, ids = torch.zeros(2, 1024, 588), torch.zeros(2, 1024, dtype=torch.int64)
    keys, is_real = torch.zeros(2, 1024, 256), torch.zeros(2, 1024, dtype=torch.bool)
    for number, (name, shape) in enumerate(shapes.items()):
        with Image.open(GOLDEN / f"{name}.png") as file:
            picture = file.convert("RGB")
        count = shape[0] * shape[1]
        pixels = normalise(cut(picture, plan_slices(*picture.size))[0])
        patches[number, :count] = torch.from_numpy(to_patches(pixels))
        ids[number, :count] = torch.from_numpy(position_ids(*shape))
        keys[number, :count] = torch.from_numpy(key_positions(*shape, 256))
        is_real[number, :count] = True
    ids[1, 1000:] = ids[1, 0]
    tokens = resampler(tower(patches, ids, is_real), keys, is_real)
    for number, name in enumerate(shapes):
        torch.testing.assert_close(tokens[number : number + 1], expected[f"{name}.tokens"], rtol=0, atol=1e-4)


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(Exception, match=r"vision width 100 is not a multiple of 3 heads"):
        HandlensConfig(vision=VisionConfig(width=100, num_heads=3))
