"""The torch halves against one plain forward pass of the joined model."""

import numpy as np
import pytest
import torch

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.prompt import Prompt
from handlens.engine.inputs import slice_inputs
from handlens.model.halves import TorchLanguage, TorchVision
from handlens.model.vlm import HandlensModel, SliceBatch, build_model


@pytest.fixture(scope="module")
def model() -> HandlensModel:
    torch.manual_seed(3)
    model = build_model(
        HandlensConfig(
            vision=VisionConfig(width=48, mlp_width=64, num_layers=2, num_heads=3),
            resampler=ResamplerConfig(num_queries=4, width=128, vision_width=48),
            language=LanguageConfig(vocab_size=64, width=128, mlp_width=128, num_layers=2),
            slicing=SlicingConfig(side_px=112),
        )
    )
    with torch.no_grad():
        for weight in model.llm.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    return model.eval()


@pytest.fixture(scope="module")
def slices() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.uniform(-1, 1, (3, 56, 84)).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    is_visual = np.array([False] * 3 + [True] * 4 + [False] * 2 + [True] * 4 + [False] * 3)
    return Prompt(ids=np.random.default_rng(1).integers(0, 64, 16), is_visual=is_visual)


def whole_logits(model: HandlensModel, prompt: Prompt, slices: list[np.ndarray], answer: list[int]) -> np.ndarray:
    arrays = [slice_inputs(pixels, model.config.typed()) for pixels in slices]
    batch = SliceBatch(*(torch.from_numpy(np.stack(part)) for part in zip(*arrays, strict=True)), None)
    ids = torch.tensor([*prompt.ids.tolist(), *answer])[None]
    is_visual = torch.tensor([*prompt.is_visual.tolist(), *[False] * len(answer)])[None]
    with torch.no_grad():
        return model(ids, is_visual, batch).logits[0, -1].numpy()


def test_halves_give_what_the_joined_model_gives(
    model: HandlensModel, prompt: Prompt, slices: list[np.ndarray]
) -> None:
    vision, language = TorchVision(model), TorchLanguage(model)
    visual_tokens = np.concatenate([vision.encode(pixels) for pixels in slices])
    np.testing.assert_allclose(
        language.prefill(prompt, visual_tokens), whole_logits(model, prompt, slices, []), atol=1e-4
    )
    language.step([20, 21, 22], [0, 0, 0])
    logits = language.step([30, 31], [2, 0])
    for row, answer in zip(logits, ([22, 30], [20, 31]), strict=True):
        np.testing.assert_allclose(row, whole_logits(model, prompt, slices, answer), atol=1e-4)


def test_prefill_forgets_what_came_before(model: HandlensModel, prompt: Prompt) -> None:
    language = TorchLanguage(model)
    visual_tokens = np.zeros((8, 128), dtype=np.float32)
    first = language.prefill(prompt, visual_tokens)
    language.step([5, 6], [0, 0])
    np.testing.assert_array_equal(language.prefill(prompt, visual_tokens), first)


def test_a_prompt_without_pictures(model: HandlensModel) -> None:
    prompt = Prompt(ids=np.arange(9), is_visual=np.zeros(9, dtype=bool))
    found = TorchLanguage(model).prefill(prompt, np.zeros((0, 1), dtype=np.float32))
    with torch.no_grad():
        expected = model.llm(torch.arange(9)[None]).logits[0, -1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
