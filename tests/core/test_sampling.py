"""Sampling against tables worked by hand, against brute force, and as invariants."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from handlens.core.sampling import Sampling, generate, keep_likely, log_softmax
from handlens.errors import ModelError, SettingError

STOP = 0


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, dtype=np.float32))


class Markov:
    """A language model whose next token depends on the last one; row -1 is the start."""

    def __init__(self, table: np.ndarray) -> None:
        self.logits = np.log(table.astype(np.float32))
        self.calls: list[tuple[list[int], list[int]]] = []

    @property
    def first(self) -> np.ndarray:
        return self.logits[-1]

    def step(self, ids, parents) -> np.ndarray:
        self.calls.append((list(ids), list(parents)))
        return self.logits[list(ids)]


def run(table: np.ndarray, sampling: Sampling, forbidden=()) -> list[int]:
    model = Markov(table)
    return [token for token, _ in generate(model.first, model.step, [STOP], sampling, forbidden)]


# Rows: after token 0 (never used), 1, 2, 3, and the start. Columns: stop, 1, 2, 3.
TABLE = np.array(
    [
        [0.25, 0.25, 0.25, 0.25],
        [0.10, 0.10, 0.60, 0.20],
        [0.15, 0.15, 0.20, 0.50],
        [0.70, 0.10, 0.10, 0.10],
        [0.10, 0.50, 0.30, 0.10],
    ]
)


def test_greedy_follows_the_likeliest_token_to_the_stop():
    model = Markov(TABLE)
    answer = list(generate(model.first, model.step, [STOP], Sampling()))
    assert [token for token, _ in answer] == [1, 2, 3]
    assert [logprob for _, logprob in answer] == pytest.approx([math.log(0.5), math.log(0.6), math.log(0.5)], abs=1e-6)
    assert model.calls == [([1], [0]), ([2], [0]), ([3], [0])]


def test_max_tokens_ends_the_answer_without_a_needless_step():
    model = Markov(TABLE)
    assert len(list(generate(model.first, model.step, [STOP], Sampling(max_tokens=2)))) == 2
    assert len(model.calls) == 1


def test_forbidden_tokens_are_never_chosen():
    assert run(TABLE, Sampling(max_tokens=3), forbidden=[2]) == [1, 3]  # 1 -> 3 (0.2 is left as the largest) -> stop
    with pytest.raises(ModelError, match="no token that may be chosen"):
        run(TABLE, Sampling(), forbidden=[0, 1, 2, 3])


def test_penalty_divides_positive_and_multiplies_negative_logits():
    # Token 1 leads with 3.0; penalty 2 halves it to 1.5 < 2.0, so token 2 follows. Then 1.5 > 1.0 = 2.0 / 2.
    positive = np.array([-9.0, 3.0, 2.0], dtype=np.float32)
    answer = list(
        generate(positive, lambda ids, _: positive[None], [STOP], Sampling(max_tokens=3, repetition_penalty=2.0))
    )
    assert [token for token, _ in answer] == [1, 2, 1]
    # Negative: -1.0 becomes -2.0, below -1.5; then -2.0 (token 1) is above -3.0 (token 2).
    negative = np.array([-9.0, -1.0, -1.5], dtype=np.float32)
    answer = list(
        generate(negative, lambda ids, _: negative[None], [STOP], Sampling(max_tokens=3, repetition_penalty=2.0))
    )
    assert [token for token, _ in answer] == [1, 2, 1]
    # The log-probability is the model's own: unchanged by the penalty.
    assert answer[0][1] == answer[2][1] == pytest.approx(log_softmax(negative)[1])


def test_top_k_and_top_p_on_a_table():
    scores = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
    ids, probabilities = keep_likely(scores, top_k=2, top_p=1.0)
    assert ids.tolist() == [1, 3]
    assert probabilities == pytest.approx([4 / 7, 3 / 7])
    assert keep_likely(scores, top_k=0, top_p=0.65)[0].tolist() == [1, 3]
    assert keep_likely(scores, top_k=0, top_p=0.75)[0].tolist() == [1, 3, 2]
    # top_k acts first: of 4/7 and 3/7 the first alone has 0.57.
    assert keep_likely(scores, top_k=2, top_p=0.55)[0].tolist() == [1]


@given(
    scores=hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-30, 30)),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 50),
)
def test_top_p_keeps_the_smallest_sufficient_set(scores, top_p, top_k):
    ids, probabilities = keep_likely(scores, top_k=top_k, top_p=top_p)
    assert probabilities.sum() == pytest.approx(1)
    assert len(set(ids.tolist())) == len(ids) <= (top_k or len(scores))
    # No dropped token is likelier than a kept one.
    dropped = np.delete(scores, ids)
    assert dropped.size == 0 or dropped.max() <= scores[ids].min()
    shares = np.exp(log_softmax(np.sort(scores)[::-1][: top_k or None]))
    if top_p < 1:
        assert shares[: len(ids)].sum() >= top_p - 1e-9
        assert shares[: len(ids) - 1].sum() < top_p + 1e-9


@given(seed=st.integers(0, 2**32), temperature=st.floats(0.05, 5), top_p=st.floats(0.1, 1))
def test_same_seed_same_answer(seed, temperature, top_p):
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_tokens=12)
    assert run(TABLE, sampling) == run(TABLE, sampling)


def test_sampling_draws_by_probability():
    sharp = logits_of(0.2, 0.5, 0.3)
    drawn = [
        next(iter(generate(sharp, lambda *_: sharp[None], [9], Sampling(temperature=1.0, max_tokens=1, seed=seed))))[0]
        for seed in range(3000)
    ]
    # Three deviations of a share from 3000 draws are below 0.028.
    assert np.bincount(drawn, minlength=3) / 3000 == pytest.approx([0.2, 0.5, 0.3], abs=0.028)


def test_a_tiny_temperature_is_greedy():
    assert run(TABLE, Sampling(temperature=1e-9)) == run(TABLE, Sampling())


def brute_force(table: np.ndarray, max_tokens: int) -> list[int]:
    """Score every answer by its mean log-probability, the stop token counted."""
    vocab, best = table.shape[1], (-math.inf, [])
    for length in range(1, max_tokens + 1):
        for answer in itertools.product(range(vocab), repeat=length):
            if STOP in answer[:-1] or (length < max_tokens and answer[-1] != STOP):
                continue
            path = [-1, *answer]
            score = sum(math.log(table[a, b]) for a, b in itertools.pairwise(path)) / length
            best = max(best, (score, list(answer)))
    return [token for token in best[1] if token != STOP]


@pytest.mark.parametrize("seed", range(20))
def test_wide_beam_search_finds_the_best_answer(seed):
    table = np.random.default_rng(seed).dirichlet(np.ones(4) * 0.7, size=5) + 1e-3
    table /= table.sum(axis=1, keepdims=True)
    # 4 tokens deep there are 3**4 = 81 open beams at most, so nothing is cut. The search may end before the
    # last depth only when an answer cannot improve by growing at its present mean: compare scores, not ids.
    model = Markov(table)
    found = list(generate(model.first, model.step, [STOP], Sampling(num_beams=200, max_tokens=4)))
    assert [token for token, _ in found] == brute_force(table, 4)


def test_three_beams_on_a_table_worked_by_hand():
    # Start: 1 = 0.5, 2 = 0.4, stop = 0.1.  1 -> stop 0.3, 1 0.3, 2 0.4;  2 -> stop 0.9, 1 0.05, 2 0.05.
    # [2, stop] has (ln 0.4 + ln 0.9) / 2 = -0.511; greedy goes 1, 2, stop: (ln 0.5 + ln 0.4 + ln 0.9) / 3 = -0.572;
    # [1, stop] = (ln 0.5 + ln 0.3) / 2 = -0.949.
    table = np.array([[1 / 3, 1 / 3, 1 / 3], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05], [0.1, 0.5, 0.4]])
    assert run(table, Sampling()) == [1, 2]
    assert run(table, Sampling(num_beams=3)) == [2]


def test_beam_search_steps_name_their_parents():
    model = Markov(TABLE)
    list(generate(model.first, model.step, [STOP], Sampling(num_beams=2, max_tokens=4)))
    assert model.calls[0] == ([1, 2], [0, 0])
    for ids, parents in model.calls:
        assert len(ids) == len(parents) <= 2
        assert max(parents) < 2


def test_more_beams_than_tokens_still_answers():
    one = logits_of(0.3, 0.7)
    answer = list(
        generate(one, lambda ids, _: np.tile(one, (len(ids), 1)), [STOP], Sampling(num_beams=5, max_tokens=3))
    )
    assert [token for token, _ in answer] == [1, 1, 1]  # mean ln 0.7 beats every answer that stops


@pytest.mark.parametrize("num_beams", [1, 3])
def test_logits_that_are_not_numbers_are_an_error(num_beams):
    bad = np.array([0.0, np.nan, 1.0], dtype=np.float32)
    with pytest.raises(ModelError, match="not numbers"):
        list(generate(bad, lambda *_: bad[None], [STOP], Sampling(num_beams=num_beams)))
    good = np.array([0.0, 2.0, 1.0], dtype=np.float32)
    with pytest.raises(ModelError, match="not numbers"):
        list(generate(good, lambda ids, _: np.tile(bad, (len(ids), 1)), [STOP], Sampling(num_beams=num_beams)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"temperature": -0.5}, "temperature is -0.5; it must be 0 (greedy) or a positive number"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1; it must be 0 (off) or more"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be a positive number"),
        ({"num_beams": 0}, "num_beams is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"num_beams": 3, "temperature": 0.7}, "beam search does not sample"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(SettingError) as error:
        Sampling(**settings)
    assert message in str(error.value)
