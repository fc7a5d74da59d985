"""Looking ahead changes how often the model runs, never what it says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlens.config import LanguageConfig
from handlens.core.prompt import Prompt
from handlens.core.sampling import Sampling, generate
from handlens.engine import lookup
from handlens.engine.language import LlamaCppLanguage
from handlens.engine.lookup import LEAST_MATCH, NO_LOOKUP, Guesser, LookAhead, may_look
from handlens.engine.room import Room
from handlens.engine.setup import Setup
from handlens.errors import SettingError

STOP = 3


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess often, also where it does not pay: what is tested is that the answer stays the same."""
    monkeypatch.setattr(lookup, "SMALL_MATCH", LEAST_MATCH)
    monkeypatch.setattr(lookup, "MOST_LOSS", float("inf"))


class NoisyReader:
    """The next token depends on the last two; logits of a batch carry an error, as rounding makes it."""

    def __init__(self, table: np.ndarray, start: Sequence[int], error: float, room: int) -> None:
        self.table, self.ids, self.error, self.room = table, list(start), error, room
        self.draw, self.runs = np.random.default_rng(0), 0

    def logits(self) -> np.ndarray:
        return self.table[self.ids[-2], self.ids[-1]]

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> np.ndarray:
        return self.read(ids)

    def read(self, ids: Sequence[int]) -> np.ndarray:
        self.runs += 1
        rows = []
        for token in ids:
            self.ids.append(token)
            rows.append(self.logits() + (self.draw.uniform(-1, 1, self.table.shape[-1]) * self.error * (len(ids) > 1)))
        assert len(self.ids) <= self.room, "read beyond the cache"
        return np.array(rows, dtype=np.float32)

    def forget(self, count: int) -> None:
        del self.ids[len(self.ids) - count :]


def text_prompt(ids: Sequence[int]) -> Prompt:
    return Prompt(ids=np.array(ids), is_visual=np.zeros(len(ids), dtype=bool))


@settings(max_examples=12)
@example(seed=95, error=0.2, longest=22)  # the first close choice came from a single step, which measures no error
@given(seed=st.integers(0, 10_000), error=st.sampled_from([0.0, 0.01, 0.2]), longest=st.integers(1, 90))
def test_the_answer_is_that_of_single_steps_whatever_a_batch_rounds(seed: int, error: float, longest: int) -> None:
    draw = np.random.default_rng(seed)
    size = 12
    # Near ties everywhere: half of all rows have a second token 0.05 behind the first.
    table = draw.normal(0, 3, (size, size, size)).astype(np.float32)
    table[..., STOP] -= 4
    best = table.argmax(-1)
    near = (best + 1) % size
    rows = np.indices(best.shape)
    close = draw.random(best.shape) < 0.5
    table[rows[0][close], rows[1][close], near[close]] = table[close].max(-1) - 0.05
    start = draw.integers(4, size, 30).tolist()
    sampling = Sampling(max_tokens=longest, stop_loops=False)

    def answer(most: int) -> tuple[list[int], NoisyReader]:
        reader = NoisyReader(table, start, error, 30 + longest)
        first = reader.logits()
        ahead = LookAhead(reader, reader.step, text_prompt(start), first, most=most, longest=longest) if most else None
        step = (ahead or reader).step
        return [token for token, _ in generate(first, step, [STOP], sampling, doubt=ahead)], reader

    expected, _ = answer(0)
    for most in (1, 15):
        found, reader = answer(most)
        assert found == expected
        assert reader.ids[30 : 30 + len(found) - 1] == expected[: len(found) - 1], "the cache holds the answer"


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_K_M"])
def test_llama_cpp_says_the_same_with_and_without(
    quant: str, gguf_file: Callable[[str], Path], shape: LanguageConfig
) -> None:
    """Answers of three different tokens repeat themselves often, so much is guessed, rightly and wrongly."""
    half = LlamaCppLanguage(gguf_file(quant), Room(prompt=60, answer=80), threads=1)
    nothing = np.zeros((0, shape.width), dtype=np.float32)
    sampling = Sampling(max_tokens=80, stop_loops=False)
    never = [token for token in range(shape.vocab_size) if token not in (20, 21, 22)]
    right = tokens = 0
    for seed in range(3):
        prompt = text_prompt(np.random.default_rng(seed).integers(16, shape.vocab_size, 40).tolist())
        first = half.prefill(prompt, nothing)
        expected = [token for token, _ in generate(first, half.step, [STOP], sampling, never)]
        first = half.prefill(prompt, nothing)
        ahead = LookAhead(half, half.step, prompt, first, most=15, longest=80)
        assert [token for token, _ in generate(first, ahead.step, [STOP], sampling, never, doubt=ahead)] == expected
        right, tokens = right + ahead.num_right, tokens + len(expected)
    assert right > 0.2 * tokens, "nothing was guessed, so nothing was proven"
    half.close()


@settings(max_examples=60)
@given(st.lists(st.integers(-1, 3), max_size=60), st.integers(1, 20))
def test_a_guess_is_what_followed_the_latest_match(ids: list[int], most: int) -> None:
    found = Guesser(ids, most=most).guess()
    key = ids[-LEAST_MATCH:]
    ends = [end for end in range(LEAST_MATCH, len(ids)) if ids[end - LEAST_MATCH : end] == key]
    if len(key) < LEAST_MATCH or min(key) < 0 or not ends:
        assert found == []
        return
    agreed, place = LEAST_MATCH, ends[-1]
    while agreed < place and ids[place - 1 - agreed] == ids[len(ids) - 1 - agreed] >= 0:
        agreed += 1
    period = ids[place:]
    expected = [period[index % len(period)] for index in range(min(agreed, most))]
    assert found == (expected[: expected.index(-1)] if -1 in expected else expected)


def test_bad_guesses_make_it_ask_for_longer_agreement() -> None:
    guesser = Guesser([5, 6, 7, 8, 5, 6, 7], most=4)
    assert guesser.guess() == [8, 5, 6]
    guesser.learn(3, 0)
    assert guesser.guess() == []
    guesser.learn(3, 3)
    assert guesser.guess() == [8, 5, 6]


def test_an_answer_that_guesses_badly_is_guessed_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle whose last token is always another one, and a guesser that does not learn from it."""
    monkeypatch.setattr(lookup, "MOST_LOSS", 4.0)
    monkeypatch.setattr(Guesser, "learn", lambda *_: None)
    said = [token for turn in range(40) for token in (5, 6, 7, 8, 9 + turn % 2)]
    table = np.zeros((len(said) + 1, 16), dtype=np.float32)
    table[np.arange(len(said)), said] = 9

    class Script(NoisyReader):
        def logits(self) -> np.ndarray:
            return self.table[len(self.ids) - 2]

    reader = Script(table, [4, 4], 0.0, 1000)
    ahead = LookAhead(reader, reader.step, text_prompt([4, 4]), reader.logits(), most=15, longest=len(said))
    found = [token for token, _ in generate(reader.logits(), ahead.step, [STOP], Sampling(max_tokens=200), doubt=ahead)]
    assert found == said[: len(found)] and len(found) > 90
    assert ahead._gain > -4.0 - 15  # one batch more than the limit at most


def test_only_plain_greedy_answers_are_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert may_look(Sampling())
    others = (Sampling(temperature=0.5), Sampling(num_beams=2), Sampling(repetition_penalty=1.1))
    assert not any(map(may_look, (*others, Sampling(watch=print))))
    monkeypatch.setenv(NO_LOOKUP, "1")
    assert not may_look(Sampling())
    with pytest.raises(SettingError, match=r"lookup is -1; give 0 \(off\)"):
        Setup(lookup=-1)
