"""The language half is the stock Llama of transformers."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from handlens.config import LanguageConfig
from handlens.model.language import build_language


@torch.no_grad()
def test_equals_a_llama_that_is_configured_elsewhere(model, config):
    """Settings written by hand as a user of transformers would, weights copied, logits equal."""
    shape = config.language
    stock = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=90, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-6, max_position_embeddings=shape.max_positions,
            tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    stock.load_state_dict(model.llm.state_dict())
    ids = torch.randint(0, 90, (2, 17), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.llm(ids).logits, stock(ids).logits)
    assert torch.equal(model(ids).logits, stock(ids).logits)


@torch.no_grad()
def test_rope_theta_of_the_configuration_arrives():
    shape = LanguageConfig(vocab_size=20, width=128, mlp_width=64, num_layers=1, num_heads=2, num_kv_heads=2)
    slow = LanguageConfig(
        vocab_size=20, width=128, mlp_width=64, num_layers=1, num_heads=2, num_kv_heads=2, rope_theta=100.0
    )
    one, other = build_language(shape).eval(), build_language(slow).eval()
    other.load_state_dict(one.state_dict())
    ids = torch.arange(8)[None]
    assert not torch.allclose(one(ids).logits, other(ids).logits, atol=1e-4)
    # 64 channels per head: wave i turns by theta ** (-2i / 64) per position.
    waves = other.model.rotary_emb.inv_freq
    torch.testing.assert_close(waves, 100.0 ** (-torch.arange(0, 64, 2) / 64))


def test_tied_weights_are_one_tensor():
    fields = {"vocab_size": 20, "width": 128, "mlp_width": 64, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2}
    tied, apart = (build_language(LanguageConfig(**fields, tied=choice)) for choice in (True, False))
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert apart.lm_head.weight is not apart.model.embed_tokens.weight
