"""Beam search and greedy decoding against ``generate`` of transformers on a small random Llama."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from handlens.core.sampling import Sampling, generate

STOPS = (2, 5)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=None, pad_token_id=0, initializer_range=0.6,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


class Full:
    """Step function that runs the whole sequence again: no cache that could be wrong."""

    def __init__(self, llama: LlamaForCausalLM, embeds: torch.Tensor) -> None:
        self.llama, self.embeds, self.beams = llama, embeds, [[]]

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        answers = torch.tensor(self.beams, dtype=torch.long)
        tail = self.llama.get_input_embeddings()(answers)
        whole = torch.cat([self.embeds.expand(len(self.beams), -1, -1), tail], dim=1)
        return self.llama(inputs_embeds=whole).logits[:, -1].numpy()

    def step(self, ids, parents) -> np.ndarray:
        self.beams = [[*self.beams[parent], token] for token, parent in zip(ids, parents, strict=True)]
        return self.logits()


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"num_beams": 3, "repetition_penalty": 1.2}, {"repetition_penalty": 1.3}]
)
def test_agrees_with_transformers(llama, settings, seed):
    embeds = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(seed)) * 2
    expected = llama.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(1, 4, dtype=torch.long), max_new_tokens=12, do_sample=False,
        eos_token_id=list(STOPS), pad_token_id=0, length_penalty=1.0, early_stopping=False, **settings,
    )[0].tolist()  # fmt: skip
    for place, token in enumerate(expected):
        if token in STOPS:
            expected = expected[:place]
            break
    model = Full(llama, embeds)
    model.beams = [[]]
    answer = generate(model.logits()[0], model.step, STOPS, Sampling(max_tokens=12, **settings))
    assert [token for token, _ in answer] == expected
