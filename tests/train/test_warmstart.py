"""A fresh resampler learns where things are, before it is trained."""

import numpy as np
import pytest
import torch

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, VisionConfig
from handlens.core.patches import key_positions, position_ids
from handlens.model.vlm import HandlensModel, SliceBatch, build_model
from handlens.train.warmstart import localise, place_code, place_codes


def slices(rows: int, columns: int, count: int, seed: int) -> SliceBatch:
    """Paper with a little noise, in slices of one shape."""
    draw = np.random.default_rng(seed)
    places = np.tile(position_ids(rows, columns), (count, 1))
    keys = np.tile(key_positions(rows, columns, 256), (count, 1, 1))
    pixels = draw.normal(0.8, 0.2, (count, rows * columns, 588)).astype(np.float32)
    return SliceBatch(torch.from_numpy(pixels), torch.from_numpy(places), torch.from_numpy(keys), None)


@pytest.fixture(scope="module")
def fitted() -> tuple[HandlensModel, float]:
    torch.manual_seed(0)
    model = build_model(
        HandlensConfig(
            vision=VisionConfig(width=192, mlp_width=128, num_layers=1, num_heads=3),
            resampler=ResamplerConfig(num_queries=16, width=256, vision_width=192),
            language=LanguageConfig(vocab_size=50, num_layers=1),
        )
    )
    shapes = [(8, 8), (6, 10), (10, 6), (12, 8), (8, 12), (7, 9)]
    r_squared = localise(model, [slices(*shape, 4, seed) for seed, shape in enumerate(shapes)])
    return model, r_squared


def attention(model: HandlensModel, batch: SliceBatch) -> np.ndarray:
    """Shares of attention [slices, heads, queries, patches], worked out from the weights."""
    resampler = model.resampler
    with torch.no_grad():
        values = resampler.ln_kv(resampler.kv_proj(model.vpm(batch.patches, batch.position_ids, None)))
        q_weight, k_weight, _ = resampler.attn.in_proj_weight.chunk(3)
        q_bias, k_bias, _ = resampler.attn.in_proj_bias.chunk(3)
        q = resampler.ln_q(resampler.query) @ q_weight.T + q_bias
        k = (values + batch.key_positions) @ k_weight.T + k_bias
        shares = [(q[:, part] @ k[..., part].mT / 128**0.5).softmax(-1) for part in (slice(0, 128), slice(128, 256))]
    return torch.stack(shares, dim=1).numpy()


def test_places_are_found_by_an_untrained_tower(fitted):
    _, r_squared = fitted
    assert 0.5 < r_squared <= 1.0


@pytest.mark.parametrize("shape", [(8, 8), (12, 8), (8, 12)])
def test_each_query_reads_its_own_cell_most(fitted, shape):
    """16 queries are 4x4 cells. Slices never seen before; an even spread would give each cell 1/16."""
    model, _ = fitted
    rows, columns = shape
    shares = attention(model, slices(rows, columns, 3, seed=99)).mean(axis=(0, 1))
    cells = shares.reshape(16, 4, rows // 4, 4, columns // 4).sum(axis=(2, 4)).reshape(16, 16)
    assert cells.argmax(axis=1).tolist() == list(range(16))
    assert cells.diagonal().min() > 0.5


def test_visual_tokens_begin_as_large_as_words(fitted):
    model, _ = fitted
    with torch.no_grad():
        tokens = model.see(slices(8, 8, 3, seed=1))
        ratio = float(tokens.std() / model.llm.get_input_embeddings().weight.std())
    assert 0.5 < ratio < 2.0


def test_the_code_of_a_place_is_likest_to_itself():
    u, v = (torch.arange(64.0) % 8 + 0.5, torch.arange(64.0) // 8 + 0.5)
    code = place_code(u, v, 8)
    assert (code @ code.T).argmax(1).tolist() == list(range(64))


def test_patches_of_slices_of_any_shape_lie_in_one_square_of_cells():
    for rows, columns in ((16, 16), (8, 30), (5, 7)):
        codes = place_codes(slices(rows, columns, 1, seed=0), 70, 8)[0].unflatten(0, (rows, columns))
        middle = place_code(torch.tensor([4.0]), torch.tensor([4.0]), 8)[0]
        nearest = int((codes.flatten(0, 1) @ middle).argmax())
        assert abs(nearest // columns + 0.5 - rows / 2) <= 0.5 and abs(nearest % columns + 0.5 - columns / 2) <= 0.5
        corner = place_code(torch.tensor([4.0 / columns]), torch.tensor([4.0 / rows]), 8)[0]
        assert torch.allclose(codes[0, 0], corner, atol=1e-5)
