"""1.0 and 4.0, of which no official run is recorded: 4.0 by composition from proven parts, 1.0 by its facts."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from handlens.config import HandlensConfig, LanguageConfig, LongRope, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.chat import ask
from handlens.core.tokenizer import CharacterTokenizer
from handlens.model.checkpoint import load_model, save_model
from handlens.model.stages import Stages
from handlens.model.vlm import HandlensModel, build_model

FACTORS = tuple(1.0 + 0.4 * place for place in range(32))
TOY = CharacterTokenizer({"<unk>": 0, "<s>": 1, "</s>": 2, "\n": 5, "<image>": 11, "</image>": 12}, first=16, count=64)
VISION = VisionConfig(width=48, mlp_width=64, num_layers=2, num_heads=3, table_side=9)


def alive(config: HandlensConfig) -> HandlensModel:
    model = build_model(config)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "resampler.pos_embed":
                weight.normal_(0.3 if weight.ndim == 1 else 0.0, 0.2, generator=draw)
    return model.eval()


@pytest.fixture(scope="module")
def of_4_0() -> HandlensModel:
    return alive(
        HandlensConfig(
            family="4.0",
            vision=VISION,
            resampler=ResamplerConfig(num_queries=16, width=128, vision_width=48),
            language=LanguageConfig(
                vocab_size=90, width=128, mlp_width=96, num_layers=2, num_heads=4, num_kv_heads=2, head_size=64,
                long_rope=LongRope(short=FACTORS, long=FACTORS, original_positions=32_786, factor=1.0),
                max_positions=32_768,
            ),
            slicing=SlicingConfig(side_px=112),
        )
    )  # fmt: skip


@torch.no_grad()
def test_longrope_of_4_0_is_that_of_transformers_and_of_its_formula(of_4_0, tmp_path):
    save_model(of_4_0, tmp_path)
    model = load_model(tmp_path)
    assert model.config.typed() == of_4_0.config.typed()
    stock = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=90, hidden_size=128, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64, rms_norm_eps=1e-6, max_position_embeddings=32_768,
            rope_parameters={
                "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 1.0, "short_factor": list(FACTORS),
                "long_factor": list(FACTORS), "original_max_position_embeddings": 32_786,
            },
        )
    ).eval()  # fmt: skip
    stock.load_state_dict(of_4_0.llm.state_dict())
    ids = torch.randint(0, 90, (1, 40), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.llm(ids).logits, stock(ids).logits)
    rotary = model.llm.model.rotary_emb
    by_hand = [1 / (factor * 10_000 ** (2 * place / 64)) for place, factor in enumerate(FACTORS)]
    np.testing.assert_allclose(rotary.inv_freq.numpy(), by_hand, rtol=1e-6)
    assert rotary.attention_scaling == 1.0
    plain = build_model(
        HandlensConfig(
            family="4.0", vision=VISION, resampler=ResamplerConfig(num_queries=16, width=128, vision_width=48),
            language=LanguageConfig(
                vocab_size=90, width=128, mlp_width=96, num_layers=2, num_heads=4, num_kv_heads=2, head_size=64
            ),
        )
    ).eval()  # fmt: skip
    plain.load_state_dict(of_4_0.state_dict())
    assert (plain.llm(ids).logits - stock(ids).logits).abs().max() > 1e-2


@torch.no_grad()
def test_4_0_sees_what_2_6_sees(of_4_0):
    """Tower, resampler and slices of 4.0 are those of 2.6, which is proven against an official run."""
    language = LanguageConfig(
        kind="qwen2", vocab_size=90, width=128, mlp_width=96, num_layers=1, num_heads=4, num_kv_heads=2
    )
    other = build_model(
        HandlensConfig(
            family="2.6", vision=VISION, resampler=ResamplerConfig(num_queries=16, width=128, vision_width=48),
            language=language, slicing=SlicingConfig(side_px=112),
        )
    ).eval()  # fmt: skip
    for part in ("vpm", "resampler"):
        getattr(other, part).load_state_dict(getattr(of_4_0, part).state_dict())
    one, two = Stages.of(of_4_0, TOY), Stages.of(other, TOY)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 260, 3), dtype=np.uint8))
    plan = one.plan(*picture.size)
    assert plan == two.plan(*picture.size)
    assert plan.num_slices > 1
    for found, expected in zip(
        one.visual_tokens(one.pixels(picture, plan)), two.visual_tokens(two.pixels(picture, plan)), strict=True
    ):
        assert np.array_equal(found, expected)


@pytest.fixture(scope="module")
def of_1_0() -> Stages:
    config = HandlensConfig(
        family="1.0",
        vision=VISION,
        resampler=ResamplerConfig(
            num_queries=64, width=128, vision_width=48, query_positions=True, stored_keys=True
        ),
        language=LanguageConfig(
            kind="minicpm", vocab_size=90, width=128, mlp_width=96, num_layers=2, num_heads=4, num_kv_heads=4,
            scale_emb=12.0, scale_depth=1.4, dim_model_base=32,
        ),
        slicing=SlicingConfig(side_px=448, max_slices=1),
    )  # fmt: skip
    return Stages.of(alive(config), TOY)


def test_1_0_reads_one_square_picture(of_1_0):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    plan = of_1_0.plan(*picture.size)
    pixels = of_1_0.pixels(picture, plan)
    assert [part.shape for part in of_1_0.layout(pixels)] == [(3, 448, 448)]
    prompt = of_1_0.prompt(ask("hi"), [plan])
    assert prompt.ids[:8].tolist() != prompt.ids[-8:].tolist()
    assert prompt.num_visual == 64
    visual_tokens = of_1_0.visual_tokens(pixels)
    assert np.isfinite(of_1_0.logits(prompt, visual_tokens)).all()
    assert of_1_0.position_ids(pixels) is None


@torch.no_grad()
def test_keys_of_1_0_are_its_stored_table_enlarged(of_1_0):
    resampler = of_1_0.model.resampler
    enlarged = resampler.enlarged_table(32, 32).reshape(32, 32, 128)
    table = resampler.pos_embed.reshape(8, 8, 128)
    # Bicubic interpolation with a = -0.75 at the centre of an output cell, written out for one place.
    place = (13 + 0.5) / 4 - 0.5
    start, t = math.floor(place), place - math.floor(place)

    def weight(x: float) -> float:
        x, a = abs(x), -0.75
        return ((a + 2) * x - (a + 3)) * x * x + 1 if x <= 1 else ((x - 5) * x + 8) * x * a - 4 * a

    weights = torch.tensor([weight(t + 1), weight(t), weight(1 - t), weight(2 - t)])
    window = table[start - 1 : start + 3, start - 1 : start + 3]
    expected = torch.einsum("i,j,ijd->d", weights, weights, window)
    torch.testing.assert_close(enlarged[13, 13], expected, rtol=0, atol=1e-5)


def test_1_0_and_2_0_are_told_apart_by_their_slices(of_1_0):
    fields = of_1_0.config.to_official()
    assert "slice_mode" not in fields and "version" not in fields
    assert HandlensConfig.from_official(fields) == of_1_0.config
    assert HandlensConfig.from_official(fields | {"slice_mode": True}).family == "2.0"
