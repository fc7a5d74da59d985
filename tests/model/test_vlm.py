"""The joined model: names, places, loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from handlens.model.vlm import build_model


def official_names(num_vision_layers: int, num_language_layers: int) -> set[str]:
    """The keys of an official checkpoint of 2.5 to 4.0 (without the biases of Qwen2), by rule."""
    both = ("weight", "bias")
    names = {"llm.model.embed_tokens.weight", "llm.lm_head.weight", "llm.model.norm.weight"}
    for layer in range(num_language_layers):
        parts = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
        parts += ["input_layernorm", "post_attention_layernorm"]
        names |= {f"llm.model.layers.{layer}.{part}.weight" for part in parts}
    names |= {f"vpm.embeddings.patch_embedding.{kind}" for kind in both}
    names |= {f"vpm.post_layernorm.{kind}" for kind in both} | {"vpm.embeddings.position_embedding.weight"}
    for layer in range(num_vision_layers):
        parts = [f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")]
        parts += ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"]
        names |= {f"vpm.encoder.layers.{layer}.{part}.{kind}" for part in parts for kind in both}
    names |= {f"resampler.{name}" for name in ("query", "kv_proj.weight", "proj")}
    names |= {
        f"resampler.attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    }
    return names | {f"resampler.{norm}.{kind}" for norm in ("ln_q", "ln_kv", "ln_post") for kind in both}


def test_weights_have_exactly_the_official_names(model):
    assert set(model.state_dict()) == official_names(2, 2)


def test_the_rule_counts_what_the_released_files_count():
    # 2.5 has 27 vision layers and a Llama of 32 layers: 741 tensors in its file.
    assert len(official_names(27, 32)) == 741


def test_shapes_are_the_official_ones(model):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["vpm.embeddings.patch_embedding.weight"] == (128, 3, 14, 14)
    assert shapes["vpm.embeddings.position_embedding.weight"] == (400, 128)
    assert shapes["resampler.attn.in_proj_weight"] == (384, 128)
    assert shapes["resampler.kv_proj.weight"] == (128, 128)
    assert shapes["llm.model.layers.0.self_attn.k_proj.weight"] == (64, 128)


@torch.no_grad()
def test_padded_slices_equal_each_alone(model, slices, config):
    together = model.see(slices)
    assert together.shape == (3, 16, 128)
    for number in range(3):
        real = slices.is_real[number]
        names = ("patches", "position_ids", "key_positions")
        parts = {name: getattr(slices, name)[number][real][None] for name in names}
        by_itself = model.see(replace(slices, **parts, is_real=None))
        torch.testing.assert_close(together[number], by_itself[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_visual_tokens_take_their_places_in_order(model):
    ids = torch.arange(1, 9).reshape(2, 4)
    is_visual = torch.tensor([[False, True, True, False], [True, False, True, True]])
    tokens = torch.arange(5.0)[:, None].expand(5, 128).reshape(1, 5, 128) * 100
    joined = model.join(ids, is_visual, tokens)
    words = model.llm.get_input_embeddings()(ids)
    assert joined[is_visual][:, 0].tolist() == [0, 100, 200, 300, 400]
    assert torch.equal(joined[~is_visual], words[~is_visual])
    assert torch.equal(model.join(ids, None, None), words)


def test_a_visual_token_receives_the_slope_of_its_own_place(model):
    ids = torch.arange(1, 6)[None]
    is_visual = torch.tensor([[False, True, False, True, False]])
    tokens = torch.zeros(2, 1, 128, requires_grad=True)
    joined = model.join(ids, is_visual, tokens)
    (slope,) = torch.autograd.grad((joined * torch.arange(5.0)[None, :, None]).sum(), tokens)
    assert slope[:, 0, 0].tolist() == [1.0, 3.0]


@torch.no_grad()
def test_loss_is_the_mean_over_labels_of_the_next_token(model, slices):
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 90, (2, 30), generator=draw)
    is_visual = torch.zeros(2, 30, dtype=torch.bool)
    is_visual[0, 2:18] = is_visual[1, 1:17] = is_visual[0, 20:28] = is_visual[1, 20:28] = True
    labels = torch.where(torch.rand(2, 30, generator=draw) < 0.5, ids, -100)
    out = model(ids, is_visual, slices, labels)
    assert out.logits.shape == (2, 30, 90)
    logs = F.log_softmax(out.logits.double(), dim=-1)
    losses = [
        -logs[row, place, labels[row, place + 1]]
        for row in range(2)
        for place in range(29)
        if labels[row, place + 1] != -100
    ]
    assert float(out.loss) == pytest.approx(float(sum(losses) / len(losses)), abs=1e-5)
    assert model(ids, is_visual, slices).loss is None


@torch.no_grad()
def test_the_picture_changes_what_follows_it_and_nothing_before(model, slices):
    ids = torch.randint(0, 90, (1, 60), generator=torch.Generator().manual_seed(0))
    is_visual = torch.zeros(1, 60, dtype=torch.bool)
    is_visual[0, 5:53] = True
    one = model(ids, is_visual, slices).logits[0]
    other = model(ids, is_visual, replace(slices, patches=slices.patches * 0.5)).logits[0]
    torch.testing.assert_close(one[:5], other[:5], rtol=0, atol=1e-5)
    assert (one[53:] - other[53:]).abs().max() > 1e-3


def test_equal_seeds_build_equal_models(config):
    torch.manual_seed(7)
    one = build_model(config)
    torch.manual_seed(7)
    same = build_model(config)
    assert all(torch.equal(weight, same.state_dict()[name]) for name, weight in one.state_dict().items())


def test_fresh_weights_are_those_of_the_released_code(config):
    model = build_model(config).requires_grad_(False)
    assert float(model.resampler.query.std()) == pytest.approx(0.02, rel=0.1)
    assert float(model.resampler.proj.std()) == pytest.approx(128**-0.5, rel=0.1)
    assert model.resampler.ln_kv.weight.eq(1).all()
    assert model.resampler.attn.in_proj_bias.eq(0).all()
