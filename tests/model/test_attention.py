"""Attention gives the same in both forms, up to the rounding of bfloat16."""

import pytest
import torch
import torch.nn.functional as F

from handlens.model.attention import attend


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_both_forms_read_the_same(is_causal, scale):
    q, k, v = draw(2, 3, 9, 16), draw(2, 3, 9, 16), draw(2, 3, 9, 16)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)
    assert torch.equal(attend(q, k, v, is_causal=is_causal, scale=scale), wanted)
    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), is_causal=is_causal, scale=scale)
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), wanted, atol=0.03)


def test_what_is_masked_is_not_read():
    q, k, v = draw(2, 1, 4, 8), draw(2, 1, 6, 8), draw(2, 1, 6, 8)
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])[:, None, None]
    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    shorter = attend(q[1:].bfloat16(), k[1:, :, :3].bfloat16(), v[1:, :, :3].bfloat16())
    assert torch.allclose(rounded[1:].float(), shorter.float(), atol=0.02)
    assert not torch.allclose(rounded[1:].float(), attend(q[1:], k[1:], v[1:]), atol=0.1)
