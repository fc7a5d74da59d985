"""The resampler against a formula written in numpy, one head and one query at a time."""

import numpy as np
import pytest
import torch

from handlens.config import ResamplerConfig
from handlens.core.patches import key_positions
from handlens.errors import SettingError
from handlens.model.resampler import Resampler


def made(**fields) -> Resampler:
    """A resampler whose every weight, also biases, is random."""
    resampler = Resampler(ResamplerConfig(**({"num_queries": 16, "width": 256, "vision_width": 48} | fields)))
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in resampler.named_parameters():
            if name != "pos_embed":
                weight.normal_(0.3 if weight.ndim == 1 else 0.0, 0.3, generator=draw)
    return resampler.eval()


def by_hand(resampler: Resampler, patches: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """softmax((LN(Q) + P) Wq . (LN(X Wkv) + K) Wk / sqrt(128)) (LN(X Wkv) Wv), then LN, then the projection."""
    weights = {name: tensor.double().numpy() for name, tensor in resampler.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    width = weights["query"].shape[1]
    values = norm(patches @ weights["kv_proj.weight"].T, "ln_kv")
    queries = norm(weights["query"], "ln_q") + weights.get("pos_embed", 0.0)
    stacked, bias = weights["attn.in_proj_weight"], weights["attn.in_proj_bias"]
    q = queries @ stacked[:width].T + bias[:width]
    k = (values + positions) @ stacked[width : 2 * width].T + bias[width : 2 * width]
    v = values @ stacked[2 * width :].T + bias[2 * width :]
    read = np.zeros_like(q)
    for head in range(width // 128):
        part = slice(128 * head, 128 * head + 128)
        for number in range(len(q)):
            logits = k[:, part] @ q[number, part] / 128**0.5
            shares = np.exp(logits - logits.max())
            read[number, part] = shares @ v[:, part] / shares.sum()
    out = read @ weights["attn.out_proj.weight"].T + weights["attn.out_proj.bias"]
    return norm(out, "ln_post") @ weights["proj"]


@pytest.mark.parametrize("query_positions", [False, True])
@pytest.mark.parametrize("num_queries", [64, 25])
def test_equals_the_formula(num_queries, query_positions):
    resampler = made(num_queries=num_queries, query_positions=query_positions)
    patches = np.random.default_rng(0).normal(size=(15, 48)).astype(np.float32)
    positions = key_positions(3, 5, 256)
    with torch.no_grad():
        tokens = resampler(torch.from_numpy(patches)[None], torch.from_numpy(positions)[None])[0]
    assert tokens.shape == (num_queries, 256)
    np.testing.assert_allclose(tokens.numpy(), by_hand(resampler, patches, positions), rtol=0, atol=1e-4)


def test_96_queries_as_in_2_5():
    resampler = made(num_queries=96)
    patches = np.random.default_rng(1).normal(size=(12, 48)).astype(np.float32)
    positions = key_positions(4, 3, 256)
    with torch.no_grad():
        tokens = resampler(torch.from_numpy(patches)[None], torch.from_numpy(positions)[None])[0]
    np.testing.assert_allclose(tokens.numpy(), by_hand(resampler, patches, positions), rtol=0, atol=1e-4)


def test_it_is_the_attention_that_torch_computes():
    """The weights lie in a MultiheadAttention; its own forward gives the same."""
    resampler = made()
    draw = torch.Generator().manual_seed(2)
    patches, positions = torch.randn(2, 9, 48, generator=draw), torch.randn(2, 9, 256, generator=draw)
    is_real = torch.ones(2, 9, dtype=torch.bool)
    is_real[1, 6:] = False
    with torch.no_grad():
        values = resampler.ln_kv(resampler.kv_proj(patches)).transpose(0, 1)
        queries = resampler.ln_q(resampler.query)[:, None].expand(-1, 2, -1)
        read, _ = resampler.attn(queries, values + positions.transpose(0, 1), values, key_padding_mask=~is_real)
        expected = (resampler.ln_post(read) @ resampler.proj).transpose(0, 1)
        torch.testing.assert_close(resampler(patches, positions, is_real), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_padding_is_never_read():
    resampler = made()
    draw = torch.Generator().manual_seed(3)
    patches, positions = torch.randn(1, 9, 48, generator=draw), torch.randn(1, 9, 256, generator=draw)
    is_real = torch.arange(9)[None] < 6
    alone = resampler(patches[:, :6], positions[:, :6])
    torch.testing.assert_close(resampler(patches, positions, is_real), alone, rtol=0, atol=1e-5)
    patches[:, 6:] = 1e3
    torch.testing.assert_close(resampler(patches, positions, is_real), alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_key_positions_decide_what_is_read():
    """The same patches in a row and in a column give other tokens."""
    resampler = made()
    patches = torch.randn(1, 6, 48, generator=torch.Generator().manual_seed(5))
    row, column = (torch.from_numpy(key_positions(*shape, 256))[None] for shape in ((1, 6), (6, 1)))
    assert (resampler(patches, row) - resampler(patches, column)).abs().max() > 1e-2


def test_query_positions_are_stored_and_never_learned():
    resampler = made(query_positions=True, num_queries=64)
    assert resampler.state_dict()["pos_embed"].shape == (64, 256)
    assert not resampler.pos_embed.requires_grad
    assert "pos_embed" not in made().state_dict()


def test_a_width_of_no_whole_heads_is_refused():
    with pytest.raises(SettingError, match=r"resampler width 200 is not a multiple of 128, the size of one head"):
        ResamplerConfig(width=200)
