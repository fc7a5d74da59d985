"""llama.cpp against the same computation written out in numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handlens.config import LanguageConfig
from handlens.core.prompt import Prompt
from handlens.engine.language import LlamaCppLanguage
from handlens.engine.room import Room
from handlens.engine.setup import Setup
from handlens.errors import ModelError, SettingError

Weights = dict[str, np.ndarray]


def llama_forward(embeddings: np.ndarray, weights: Weights, shape: LanguageConfig) -> np.ndarray:
    """Logits of every token of one sequence, float64, as the Llama papers define them."""
    x = embeddings.astype(np.float64)
    count, half = len(x), shape.head_dim // 2
    angles = np.arange(count)[:, None] * shape.rope_theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    mask = np.where(np.tri(count, dtype=bool), 0.0, -np.inf)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + shape.norm_eps) * weights[name]

    def rotate(x: np.ndarray) -> np.ndarray:
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    for layer in range(shape.num_layers):
        part = f"model.layers.{layer}."
        normed = norm(x, part + "input_layernorm.weight")
        q, k, v = (
            (normed @ weights[f"{part}self_attn.{name}_proj.weight"].T).reshape(count, -1, shape.head_dim)
            for name in "qkv"
        )
        q, k = rotate(q), rotate(k)
        groups = shape.num_heads // shape.num_kv_heads
        k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(shape.head_dim) + mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, v).reshape(count, -1)
        x = x + mixed @ weights[part + "self_attn.o_proj.weight"].T
        normed = norm(x, part + "post_attention_layernorm.weight")
        gate = normed @ weights[part + "mlp.gate_proj.weight"].T
        up = normed @ weights[part + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[part + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ weights["lm_head.weight"].T


@pytest.fixture(scope="module")
def prompt(shape: LanguageConfig) -> Prompt:
    """Text, 12 visual places, text, 5 visual places, text."""
    is_visual = np.array([False] * 3 + [True] * 12 + [False] * 2 + [True] * 5 + [False] * 6)
    ids = np.random.default_rng(2).integers(16, shape.vocab_size, len(is_visual))
    return Prompt(ids=np.where(is_visual, 0, ids), is_visual=is_visual)


@pytest.fixture(scope="module")
def visual_tokens(prompt: Prompt, shape: LanguageConfig) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(prompt.num_visual, shape.width)).astype(np.float32)


def expected_logits(
    prompt: Prompt, visual_tokens: np.ndarray, answer: list[int], weights: Weights, shape: LanguageConfig
) -> np.ndarray:
    table = weights["model.embed_tokens.weight"]
    embeddings = table[prompt.ids].copy()
    embeddings[prompt.is_visual] = visual_tokens
    return llama_forward(np.concatenate([embeddings, table[answer]]), weights, shape)


@pytest.fixture
def half(gguf_file: Callable[[str], Path], prompt: Prompt) -> LlamaCppLanguage:
    return LlamaCppLanguage(gguf_file("F32"), Room(prompt=len(prompt.ids), answer=40, beams=3), threads=1)


def test_logits_equal_numpy_over_a_prompt_with_visual_tokens_and_an_answer(
    half: LlamaCppLanguage, prompt: Prompt, visual_tokens: np.ndarray, weights: Weights, shape: LanguageConfig
) -> None:
    answer = np.random.default_rng(4).integers(16, shape.vocab_size, 32).tolist()
    expected = expected_logits(prompt, visual_tokens, answer, weights, shape)[len(prompt.ids) - 1 :]
    found = [half.prefill(prompt, visual_tokens)] + [half.step([token], [0])[0] for token in answer]
    assert np.std(expected) > 1, "flat logits would prove nothing"
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-3)


def test_prefill_forgets_what_came_before(half: LlamaCppLanguage, prompt: Prompt, visual_tokens: np.ndarray) -> None:
    first = half.prefill(prompt, visual_tokens)
    half.step([20, 21, 22], [0, 0, 0])
    half.step([30, 31], [2, 2])
    np.testing.assert_array_equal(half.prefill(prompt, visual_tokens), first)


def test_beams_follow_their_parents(
    half: LlamaCppLanguage, prompt: Prompt, visual_tokens: np.ndarray, weights: Weights, shape: LanguageConfig
) -> None:
    half.prefill(prompt, visual_tokens)
    beams: list[list[int]] = [[]]
    for ids, parents in (
        ([20, 21, 22], [0, 0, 0]),
        ([30, 31, 32], [2, 0, 2]),
        ([40, 41, 42], [0, 1, 2]),  # nothing moves
        ([50, 51], [2, 1]),  # one beam ends
        ([60, 61, 62], [1, 0, 1]),  # and a new one begins
    ):
        logits = half.step(ids, parents)
        beams = [[*beams[parent], token] for token, parent in zip(ids, parents, strict=True)]
        expected = [expected_logits(prompt, visual_tokens, beam, weights, shape)[-1] for beam in beams]
        np.testing.assert_allclose(logits, np.stack(expected), atol=1e-3)


@pytest.mark.parametrize(
    ("quant", "largest", "likeness"),
    [("F16", 0.1, 0.9999), ("BF16", 0.5, 0.999), ("Q8_0", 0.5, 0.999), ("Q4_K_M", 6.0, 0.9)],
)
def test_fewer_bits_stay_near(
    quant: str,
    largest: float,
    likeness: float,
    gguf_file: Callable[[str], Path],
    prompt: Prompt,
    visual_tokens: np.ndarray,
    weights: Weights,
    shape: LanguageConfig,
) -> None:
    half = LlamaCppLanguage(gguf_file(quant), Room(prompt=len(prompt.ids), answer=1), threads=1)
    expected = expected_logits(prompt, visual_tokens, [], weights, shape)[-1]
    found = half.prefill(prompt, visual_tokens)
    assert 0 < np.abs(found - expected).max() < largest
    assert np.corrcoef(found, expected)[0, 1] > likeness


def test_a_prompt_longer_than_a_batch_is_read_whole(
    gguf_file: Callable[[str], Path], weights: Weights, shape: LanguageConfig
) -> None:
    ids = np.random.default_rng(5).integers(16, shape.vocab_size, 700)
    prompt = Prompt(ids=ids, is_visual=np.zeros(700, dtype=bool))
    half = LlamaCppLanguage(gguf_file("F32"), Room(prompt=700, answer=1), threads=1)
    nothing = np.zeros((0, shape.width), dtype=np.float32)
    expected = expected_logits(prompt, nothing, [], weights, shape)[-1]
    np.testing.assert_allclose(half.prefill(prompt, nothing), expected, atol=1e-3)


def test_more_positions_than_the_model_has_are_refused(gguf_file: Callable[[str], Path]) -> None:
    with pytest.raises(
        SettingError, match=r"prompt of 1000 tokens and an answer of 100 need 1100 .* the model has 1024"
    ):
        LlamaCppLanguage(gguf_file("F32"), Room(prompt=1000, answer=100), threads=1)


def test_too_many_beams_are_refused(gguf_file: Callable[[str], Path]) -> None:
    with pytest.raises(SettingError, match="40 beams; 1 to 32"):
        LlamaCppLanguage(gguf_file("F32"), Room(prompt=10, answer=10, beams=40), threads=1)


def test_a_damaged_file_is_one_line(tmp_path: Path, gguf_file: Callable[[str], Path]) -> None:
    whole = gguf_file("Q8_0").read_bytes()
    cut, junk = tmp_path / "cut.gguf", tmp_path / "junk.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    junk.write_bytes(b"no model at all")
    for file in (cut, junk, tmp_path / "missing.gguf"):
        with pytest.raises(ModelError, match="cannot load") as caught:
            LlamaCppLanguage(file, Room(prompt=1, answer=1), threads=1)
        assert "\n" not in str(caught.value)


def test_the_library_is_silent(gguf_file: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    LlamaCppLanguage(gguf_file("Q8_0"), Room(prompt=10, answer=10), threads=1).close()
    assert capfd.readouterr() == ("", "")


def test_closing_twice_is_harmless(half: LlamaCppLanguage) -> None:
    half.close()
    half.close()


def longer(prompt: Prompt, ids: list[int]) -> Prompt:
    """The prompt with a turn appended."""
    return Prompt(
        ids=np.concatenate([prompt.ids, np.array(ids)]),
        is_visual=np.concatenate([prompt.is_visual, np.zeros(len(ids), dtype=bool)]),
    )


@pytest.fixture
def pictures(shape: LanguageConfig) -> Prompt:
    """300 visual places between text: more than one batch of 128."""
    is_visual = np.array([False] * 3 + [True] * 300 + [False] * 4)
    return Prompt(ids=np.where(is_visual, 0, 20 + np.arange(len(is_visual)) % 50), is_visual=is_visual)


def test_the_next_turn_computes_the_pictures_no_more(gguf_file: Callable[[str], Path], pictures: Prompt) -> None:
    tokens = np.random.default_rng(3).normal(size=(300, 256)).astype(np.float32)
    half = LlamaCppLanguage(gguf_file("Q8_0"), Room(prompt=700, answer=40), threads=1)
    half.prefill(pictures, tokens)
    assert half.num_reused == 0
    for token in (20, 21, 22):
        half.step([token], [0])
    half.prefill(longer(pictures, [20, 21, 22, 40, 41]), tokens)
    assert half.num_reused == 303  # up to the end of the picture
    half.prefill(longer(pictures, [20] * 300), tokens)
    assert half.num_reused == 303
    half.prefill(longer(pictures, [20] * 310), tokens)
    assert half.num_reused == 303 + 2 * 128  # whole chunks of the text before
    half.prefill(pictures, tokens[::-1])
    assert half.num_reused == 0  # another picture


def test_an_answer_does_not_depend_on_what_was_asked_before(gguf_file: Callable[[str], Path], pictures: Prompt) -> None:
    """Bit for bit: sums are made in the same chunks whether a part was reused or not."""
    rng = np.random.default_rng(3)
    tokens = rng.normal(size=(300, 256)).astype(np.float32)
    question, other = longer(pictures, [30, 31, 32]), longer(pictures, [50] * 200)
    setup = Setup(batch=128, micro_batch=128)

    def answer(half: LlamaCppLanguage) -> list[np.ndarray]:
        return [half.prefill(question, tokens)] + [half.step([token], [0])[0] for token in (20, 25, 30)]

    fresh = answer(LlamaCppLanguage(gguf_file("Q4_K_M"), Room(prompt=700, answer=40, beams=3), threads=1, setup=setup))
    half = LlamaCppLanguage(gguf_file("Q4_K_M"), Room(prompt=700, answer=40, beams=3), threads=1, setup=setup)
    half.prefill(other, tokens)
    half.step([20, 21, 22], [0, 0, 0])
    half.step([30, 31], [2, 2])
    for _ in range(2):  # the second time the whole prompt is known
        for found, expected in zip(answer(half), fresh, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "setup", [Setup(flash=True), Setup(mmap=True), Setup(mmap=False), Setup(repack=False), Setup(micro_batch=7)]
)
def test_every_way_of_running_computes_the_same(
    setup: Setup, gguf_file: Callable[[str], Path], prompt: Prompt, visual_tokens: np.ndarray
) -> None:
    room = Room(prompt=len(prompt.ids), answer=1)
    expected = LlamaCppLanguage(gguf_file("F32"), room, threads=1).prefill(prompt, visual_tokens)
    found = LlamaCppLanguage(gguf_file("F32"), room, threads=1, setup=setup).prefill(prompt, visual_tokens)
    np.testing.assert_allclose(found, expected, atol=2e-2)  # flash attention multiplies in 16 bits


def test_visual_tokens_of_another_width_are_refused(half: LlamaCppLanguage, prompt: Prompt) -> None:
    with pytest.raises(ModelError, match="visual tokens have width 128, the language half takes 256"):
        half.prefill(prompt, np.zeros((prompt.num_visual, 128), dtype=np.float32))
