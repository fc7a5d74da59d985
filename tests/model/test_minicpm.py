"""The MiniCPM language model equals a Llama whose weights carry the three scales."""

import torch

from handlens.config import LanguageConfig
from handlens.model.language import build_language

SHAPE = {"vocab_size": 50, "width": 64, "mlp_width": 96, "num_layers": 3, "num_heads": 4, "num_kv_heads": 4}


@torch.no_grad()
def test_scales_can_be_moved_into_the_weights():
    torch.manual_seed(0)
    scaled = LanguageConfig(kind="minicpm", scale_emb=12.0, scale_depth=1.4, dim_model_base=16, **SHAPE)
    ours, plain = build_language(scaled).eval(), build_language(LanguageConfig(**SHAPE)).eval()
    assert set(ours.state_dict()) == set(plain.state_dict())
    weights = {name: tensor.clone().normal_(0.0, 0.3) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(weights)
    branch = 1.4 / 3**0.5
    for name, tensor in weights.items():
        if name.endswith("embed_tokens.weight"):
            tensor *= 12.0
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor *= branch
        elif name.endswith("lm_head.weight"):
            tensor /= 64 / 16
    plain.load_state_dict(weights)
    ids = torch.randint(0, 50, (2, 11), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_continuing_from_the_cache_changes_nothing():
    torch.manual_seed(0)
    config = LanguageConfig(kind="minicpm", scale_emb=12.0, scale_depth=1.4, dim_model_base=16, **SHAPE)
    model = build_language(config).eval()
    ids = torch.randint(0, 50, (1, 9), generator=torch.Generator().manual_seed(2))
    first = model(ids[:, :5], use_cache=True)
    rest = model(ids[:, 5:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits, model(ids).logits[:, 5:], rtol=0, atol=1e-5)
