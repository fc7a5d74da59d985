"""Answers to claims: nothing is lost, nothing is added, and what no picture can prove wrong is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlens.align.claims import LONGEST, coverage, divide, is_claim
from handlens.data.generate import generate


def texts(question: str, answer: str) -> list[str]:
    return [claim.text for claim in divide(question, answer).claims]


@pytest.mark.parametrize(
    ("question", "answer", "claims"),
    [
        ("What do you see?", "A red circle.", ["There is a red circle."]),
        (
            "Describe the picture.",
            "A small red ring at the top left, an orange star at the center.",
            [
                "There is a red ring.", "There is a small red ring.", "There is a red ring at the top left.",
                "There is an orange star.", "There is an orange star at the center.",
            ],
        ),
        ("How many circles are there?", "3", ["The number of circles is 3."]),
        ("What is the total?", "€15.00", ["The total is €15.00."]),
        ("What color is the ring?", "blue", ["The ring is blue."]),
        ("Where is the ring?", "top left", ["The ring is at the top left."]),
        ("Is there a red ring?", "no", ["There is no red ring."]),
        ("Is there a red ring?", "yes", ["There is a red ring."]),
        ("Is the ring left of the star?", "yes", ["The answer to “Is the ring left of the star?” is “yes”."]),
        ("Read the text.", "MILK 2.50\nBREAD 1.20", ["The picture shows the text “MILK 2.50”.",
                                                       "The picture shows the text “BREAD 1.20”."]),
        ("What is it?", "- There is a dog.\n- The dog is brown.", ["There is a dog.", "The dog is brown."]),
    ],
)  # fmt: skip
def test_known_answers(question, answer, claims):
    assert texts(question, answer) == claims


def test_opinions_greetings_and_questions_are_no_claims_but_are_told():
    division = divide("What do you see?", "Sure! There is a red ring. It looks like a lovely day, I think. And you?")
    assert [claim.text for claim in division.claims] == ["There is a red ring."]
    assert division.dropped == ("Sure!", "It looks like a lovely day, I think.", "And you?")
    assert not is_claim("...") and is_claim("“I think so” is printed on it.")


@pytest.mark.parametrize(("answer", "status"), [("", "empty"), (" \n", "empty"), ("Of course!", "no_claim")])
def test_an_answer_without_a_claim_says_which_kind_it_is(answer, status):
    division = divide("What is it?", answer)
    assert (division.claims, division.status) == ((), status)
    assert division.note


def test_a_claim_said_twice_is_one_and_a_thing_named_again_is_one_more():
    told = texts("What?", "A red ring at the top, a red ring at the bottom.")
    assert len(told) == 4 and told[-1] == "There are at least 2 red rings."
    division = divide("What?", "A red cross, a red cross and a large red cross.")
    assert [claim.text for claim in division.claims][-2:] == [
        "There are at least 2 red crosses.", "There are at least 3 red crosses.",
    ]  # fmt: skip
    assert not division.added and not division.lost
    assert texts("What?", "A red ring. The red ring is small.").count("There are at least 2 red rings.") == 0


def test_coverage_knows_numbers_and_plurals():
    assert coverage("How many?", "Two stars", ["There are 2 star."]) == ((), ())
    assert coverage("What?", "a dog and a cat", ["There is a dog."]) == (("cat",), ())
    assert coverage("What?", "a dog", ["There is a dog.", "There is a bird."]) == ((), ("bird",))


def test_what_is_beyond_the_longest_answer_is_lost_and_told():
    answer = " ".join(f"There is word{number} here." for number in range(LONGEST))
    division = divide("What?", answer)
    assert 0 < len(division.claims) < LONGEST
    assert len(division.claims) + len(division.lost) >= LONGEST


@given(st.text(max_size=60), st.text(max_size=200))
def test_any_text_is_divided_without_additions(question, answer):
    division = divide(question, answer)
    assert division.added == ()
    assert (division.status == "ok") == bool(division.claims)
    for claim in division.claims:
        assert 0 <= claim.start < claim.end <= len(answer)


@pytest.mark.parametrize("number", range(20))
def test_a_generated_description_is_covered_to_its_last_word(number):
    record = generate("scenes", 5, number)
    for turn in record.turns:
        division = divide(turn.question, turn.answer)
        assert (division.status, division.lost, division.dropped) == ("ok", (), ())
