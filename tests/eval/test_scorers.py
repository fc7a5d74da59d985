"""Scores against slow and obvious versions of themselves."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlens.eval.scorers import character_error_rate, edit_distance, wilson

WORDS = st.text(alphabet="abc é", max_size=7)


@functools.cache
def slow_distance(one: str, two: str) -> int:
    """The definition: the cheapest of delete, insert, and keep or replace."""
    if not one or not two:
        return len(one) + len(two)
    return min(
        slow_distance(one[1:], two) + 1,
        slow_distance(one, two[1:]) + 1,
        slow_distance(one[1:], two[1:]) + (one[0] != two[0]),
    )


@given(WORDS, WORDS)
def test_edit_distance_equals_its_definition(one, two):
    assert edit_distance(one, two) == slow_distance(one, two)


@settings(max_examples=50)
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_edit_distance_is_a_distance(one, two, three):
    assert (edit_distance(one, two) == 0) == (one == two)
    assert edit_distance(one, two) == edit_distance(two, one)
    assert edit_distance(one, three) <= edit_distance(one, two) + edit_distance(two, three)


def test_long_texts_weigh_more():
    # 1 edit in 8 + 2 characters, and not the mean of 1/8 and 0.
    assert character_error_rate([("abcdefgh", "abcdefgx"), ("ab", "ab")]) == pytest.approx(0.1)
    assert character_error_rate([("ab", "")]) == 1.0
    assert character_error_rate([("a", "abcd")]) == 3.0
    assert character_error_rate([]) == 0.0


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # 0 of 10: 0 and z^2 / (n + z^2) = 3.8416 / 13.8416. 5 of 10: 0.5 -+ z / (2 sqrt(n + z^2)) = 0.5 -+ 0.2634.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (0, 0, 0.0, 1.0)],
)
def test_wilson_by_hand(hits, count, low, high):
    assert wilson(hits, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_holds_the_share_and_shrinks(pair):
    hits, count = pair
    low, high = wilson(hits, count)
    assert 0.0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1.0
    wider_low, wider_high = wilson(hits, count, z=2.58)
    assert wider_low <= low + 1e-12
    assert high <= wider_high + 1e-12
    more_low, more_high = wilson(10 * hits, 10 * count)
    assert more_high - more_low < high - low
