"""A loop is found soon; tables, ruled lines and lists are left alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import handlens
from handlens.core.loops import LONGEST_UNIT, MIN_REPEATS, MIN_TOKENS, LoopGuard
from handlens.core.sampling import Sampling, generate, why_ended
from handlens.core.tokenizer import Tokenizer


def first_loop(ids) -> int | None:
    """Return how many tokens were said when the guard spoke; None when it never did."""
    guard = LoopGuard()
    return next((place for place, token in enumerate(ids, 1) if guard.push(token)), None)


@settings(max_examples=10)
@given(
    before=st.lists(st.integers(0, 9), max_size=40),
    unit=st.lists(st.integers(10, 500), min_size=1, max_size=LONGEST_UNIT),
)
def test_a_repeated_piece_is_found_as_soon_as_the_rule_says(before, unit):
    times = max(MIN_REPEATS, -(-MIN_TOKENS // len(unit)))
    found = first_loop(before + unit * times)
    assert found is not None
    assert found <= len(before) + times * len(unit)
    # The guard never speaks before the shortest repetition that the rule names.
    assert found >= MIN_TOKENS


@settings(max_examples=6)
@given(st.integers(1, 60), st.integers(0, 10_000))
def test_what_never_repeats_enough_is_no_loop(width, seed):
    rng = np.random.default_rng(seed)
    row = rng.integers(20, 30, width).tolist()
    # Rows of a table that differ in their number, as a list or a table of equal goods does.
    rows = [[1, 100 + number, *row, 2] for number in range(12)]
    assert first_loop(itertools.chain.from_iterable(rows)) is None


@pytest.mark.parametrize(
    "written",
    [
        "| a | b | c | d |\n|---|---|---|---|\n" + "| 0 | 0 | 0 | 0 |\n" * 5,
        "Total" + "." * 60 + "12.50",
        "-" * 64,
        "| " + "yes | " * 8 + "\n",
        "0, " * 30,
    ],
)
def test_tables_and_ruled_lines_stay_whole(written):
    nano = Tokenizer.from_file(handlens.PACKAGED["nano"] / "tokenizer.json")
    assert first_loop(nano.encode(written).tolist()) is None


def test_generate_ends_a_loop_and_says_so():
    logits = np.zeros((1, 8), dtype=np.float32)
    logits[0, 5] = 1
    sampling = Sampling(max_tokens=400)
    ids = [token for token, _ in generate(logits[0], lambda *_: logits, [0], sampling)]
    assert len(ids) == MIN_TOKENS
    assert why_ended(ids, sampling) == "loop"
    free = Sampling(max_tokens=400, stop_loops=False)
    ids = [token for token, _ in generate(logits[0], lambda *_: logits, [0], free)]
    assert len(ids) == 400
    assert why_ended(ids, free) == "length"
