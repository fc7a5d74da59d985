"""Packed conversations give what each gives alone."""

import pytest
import torch

from handlens.model import packing


@pytest.fixture
def packed_llm(model):
    model.llm.set_attn_implementation(packing.NAME)
    yield model.llm
    model.llm.set_attn_implementation("sdpa")


@torch.no_grad()
def test_a_packed_row_equals_its_segments_alone(model, packed_llm):
    lengths = (5, 1, 9)
    ids = torch.randint(0, 90, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    together = packed_llm(ids, position_ids=places, use_cache=False, segment_lengths=lengths).logits[0]
    packed_llm.set_attn_implementation("sdpa")
    for logits, segment in zip(together.split(lengths), ids[0].split(lengths), strict=True):
        torch.testing.assert_close(logits, packed_llm(segment[None]).logits[0], rtol=0, atol=1e-5)


def test_no_gradient_crosses_a_border(model, packed_llm):
    lengths = (4, 6)
    embeddings = torch.randn(1, 10, 128, generator=torch.Generator().manual_seed(1), requires_grad=True)
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    out = packed_llm.model(inputs_embeds=embeddings, position_ids=places, use_cache=False, segment_lengths=lengths)
    (slope,) = torch.autograd.grad(out.last_hidden_state[0, 4:].square().sum(), embeddings)
    assert slope[0, :4].abs().max() == 0
    assert slope[0, 4:].abs().max() > 0
