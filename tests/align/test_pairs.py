"""Answers to pairs: the reference's rules, and nothing that could not be scored."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlens.align.pairs import (
    HowToPair,
    Pair,
    balance_lengths,
    make_pairs,
    pair_from_json,
    pair_to_json,
)
from handlens.errors import SettingError


def row(name: str, *answers: tuple[str, list[str]], status: str = "ok") -> dict:
    divided = [
        {"text": text, "status": status if claims else "no_claim", "claims": [{"text": claim} for claim in claims]}
        for text, claims in answers
    ]
    return {"id": name, "question": "What?", "answers": divided}


def verdicts(wrong: set[str], *claims: str, unread: set[str] = frozenset(), status: str = "ok") -> dict:
    told = {
        claim: {
            "verdict": "unread" if claim in unread else "rejected" if claim in wrong else "supported",
            "p_yes": 0.0 if claim in unread else 0.2 if claim in wrong else 0.9,
            "p_no": 0.0 if claim in unread else 0.8 if claim in wrong else 0.1,
        }
        for claim in claims
    }
    return {"status": status, "claims": told}


def test_the_answer_with_fewer_rejected_claims_is_preferred():
    divided = [row("p", ("one two", ["a", "b"]), ("one three", ["a", "x"]), ("three four", ["x", "y"]))]
    judged = {"p": verdicts({"x", "y"}, "a", "b", "x", "y")}
    made = make_pairs(divided, judged, HowToPair(per_question=9, balance=False))
    assert {(pair.chosen, pair.rejected, pair.chosen_score - pair.rejected_score) for pair in made.pairs} == {
        ("one two", "one three", 1.0), ("one two", "three four", 2.0), ("one three", "three four", 1.0),
    }  # fmt: skip
    assert next(pair for pair in made.pairs if pair.rejected == "three four").rejected_wrong == ("x", "y")
    assert len(make_pairs(divided, judged, HowToPair(balance=False)).pairs) == 2
    assert len(make_pairs(divided, judged, HowToPair(per_question=9, difference=2, balance=False)).pairs) == 1


def test_an_answer_that_says_less_is_not_preferred_where_facts_are_kept():
    divided = [row("p", ("one", ["a"]), ("two two", ["a", "b", "x"]), ("three", ["x", "y"]))]
    judged = {"p": verdicts({"x", "y"}, "a", "b", "x", "y")}
    made = make_pairs(divided, judged, HowToPair(per_question=9, balance=False, keeps_facts=True))
    assert {(pair.chosen, pair.rejected) for pair in made.pairs} == {("one", "three"), ("two two", "three")}


def test_whole_answers_are_compared_by_their_share_of_yes():
    divided = [row("p", ("right", ["right"]), ("wrong", ["wrong"]))]
    judged = {"p": verdicts({"wrong"}, "right", "wrong")}
    (pair,) = make_pairs(divided, judged, HowToPair(scoring="whole", difference=0.5, balance=False)).pairs
    assert (pair.chosen, pair.chosen_score, pair.rejected_score) == ("right", 0.9, 0.2)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (verdicts({"x"}, "a", "x", unread={"x"}), {"unread claim": 1}),
        (verdicts({"x"}, "a"), {"unread claim": 1}),
        (verdicts({"x"}, status="failed"), {"judge: failed": 2}),
        (None, {"not judged": 2}),
    ],
)
def test_an_answer_that_was_not_judged_is_counted_and_never_paired(left, told):
    divided = [row("p", ("one", ["a"]), ("two", ["x"]), ("", []))]
    made = make_pairs(divided, {} if left is None else {"p": left}, HowToPair())
    assert made.pairs == ()
    assert made.statistics["answers left out"] == told | {"no_claim": 1}
    assert made.statistics["questions without a pair"] == 1


def test_equal_texts_are_one_answer():
    divided = [row("p", ("one", ["a"]), (" one ", ["a"]), ("two", ["x"]))]
    made = make_pairs(divided, {"p": verdicts({"x"}, "a", "x")}, HowToPair(per_question=9, balance=False))
    assert len(made.pairs) == 1 and made.statistics["equal texts"] == 1


def a_pair(words_chosen: int, words_rejected: int) -> Pair:
    return Pair(id="p#0", question="What?", chosen="w " * words_chosen, rejected="w " * words_rejected,
                chosen_score=0.0, rejected_score=-1.0)  # fmt: skip


def test_the_threshold_is_the_one_that_balances_lengths():
    # Gaps 0.5, 0.5, 0, -1: without the first two, means are 10 against 7.5; with all, 10 against 13.75. The best
    # threshold below 0.5 keeps the last two: 2.5 words apart instead of 3.75.
    pairs = [a_pair(10, 20), a_pair(10, 20), a_pair(10, 10), a_pair(10, 5)]
    kept, threshold = balance_lengths(pairs)
    assert kept == pairs[2:] and threshold == 0.48
    assert balance_lengths([]) == ([], 1.0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=30))
def test_balance_never_makes_lengths_more_different(lengths):
    pairs = [a_pair(*both) for both in lengths]
    kept, _ = balance_lengths(pairs)

    def difference(some):
        return abs(sum(len(one.chosen.split()) - len(one.rejected.split()) for one in some)) / len(some)

    assert kept and difference(kept) <= difference(pairs) + 1e-9
    assert all(one.gap <= max(other.gap for other in kept) for one in kept)


def test_pairs_survive_the_disk_and_settings_are_checked():
    pair = Pair(id="p#1", question="q", chosen="a", rejected="b", chosen_score=0.0, rejected_score=-2.0,
                rejected_wrong=("x", "y"))  # fmt: skip
    assert pair_from_json(pair_to_json(pair) | {"later": 1}) == pair
    assert pair.ask == "p"
    with pytest.raises(SettingError, match="must be above 0"):
        HowToPair(difference=0)
