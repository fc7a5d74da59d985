"""The torch halves against one plain forward pass of the joined model."""

import json

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.chat import ask
from handlens.core.images import Picture, open_picture
from handlens.core.prompt import Prompt
from handlens.core.sampling import Sampling
from handlens.core.tokenizer import Tokenizer
from handlens.engine.inputs import slice_inputs
from handlens.model.checkpoint import load_model
from handlens.model.halves import TorchLanguage, TorchVision, torch_lens
from handlens.model.stages import Stages
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


# ---- families whose slices are encoded together ----------------------------------------------------------------------


def toy_tokenizer(special_ids: dict[str, int]) -> Tokenizer:
    """The toy tokenizer of a recorded reference as a real one: bytes from 128 on, special tokens at their ids."""
    names = {"<bos>": "<|begin_of_text|>", "<eos>": "<|end_of_text|>"}
    specials = {names.get(name, name): token_id for name, token_id in special_ids.items() if name != "\n"}
    letters = {chr(byte): 128 + byte for byte in range(33, 127)} | {"Ġ": 160, "Ċ": special_ids["\n"]}
    taken = set(specials.values()) | set(letters.values())
    fillers = {f"<{token_id}>": token_id for token_id in range(512) if token_id not in taken}
    fast = FastTokenizer(models.BPE(vocab=specials | letters | fillers, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return Tokenizer(fast)


def recorded_case(golden, version: str, name: str) -> tuple[dict, dict, Picture]:
    reference = json.loads((golden(version) / "expected.json").read_text(encoding="utf-8"))
    case = next(case for case in reference["cases"] if case["name"] == name)
    (file,) = case["images"]
    return reference, case, open_picture(golden(version) / file)


@pytest.mark.parametrize(("name", "question"), [("square", "What is drawn here?"), ("image2", "Describe the strip.")])
def test_2_5_answers_what_the_official_code_answers(golden, name, question):
    reference, case, picture = recorded_case(golden, "2.5", name)
    tokenizer = toy_tokenizer(reference["toy_tokenizer"]["special_ids"])
    lens = torch_lens(load_model(golden("2.5")), tokenizer)
    seen = lens.see([picture])
    chat = ask(question)
    assert lens.prompt(chat, seen).ids.tolist() == case["input_ids"]
    said = list(lens.answer(chat, seen, Sampling(max_tokens=16)))
    assert [token.id for token in said] == case["greedy"]


def test_4_6_answers_through_the_same_protocol(golden):
    reference, _, picture = recorded_case(golden, "4.6", "16x.image1")
    model = load_model(golden("4.6"))
    tokenizer = toy_tokenizer(reference["toy_tokenizer"]["special_ids"])
    lens, stages = torch_lens(model, tokenizer), Stages.of(model, tokenizer)
    seen = lens.see([picture])
    plan = stages.plan(*picture.image.size)
    assert seen.plans == [plan]
    tokens = stages.visual_tokens(stages.pixels(picture.image, plan))
    assert len({len(part) for part in tokens}) > 1, "slices of different length"
    np.testing.assert_array_equal(seen.pictures[0].visual_tokens[0], np.concatenate(tokens))
    chat = ask("What is it?")
    said = list(lens.answer(chat, seen, Sampling(max_tokens=4)))
    prompt = stages.prompt(chat, [plan])
    for place, expected in enumerate(stages.greedy(prompt, tokens, 4)):
        if tokenizer.is_special(expected):
            break
        assert said[place].id == expected
    searched = list(lens.answer(chat, seen, Sampling(max_tokens=3, num_beams=2)))
    assert sum(token.logprob for token in searched) >= sum(token.logprob for token in said[:3]) - 1e-3
