"""The judge that cannot err: a record's own description is true to the last claim, a changed one is not."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlens.align.claims import divide
from handlens.align.truth import Mentions, hallucination, is_true, rate_mentions
from handlens.data.generate import generate
from handlens.data.generate.scene_talk import describe

RECORDS = [generate("scenes", 8, number) for number in range(12)]


@given(st.sampled_from(RECORDS))
def test_a_description_is_true_in_every_claim(record):
    claims = divide("What do you see?", describe(record.things, *record.picture.size)).claims
    assert claims and all(is_true(claim.text, record) is True for claim in claims)


@pytest.mark.parametrize("kind", ["scenes", "receipts", "labels"])
def test_a_record_never_contradicts_its_own_answers(kind):
    for number in range(6):
        record = generate(kind, 9, number)
        for turn in record.turns:
            for claim in divide(turn.question, turn.answer).claims:
                assert is_true(claim.text, record) is not False, (turn, claim)


def test_colour_shape_size_place_and_count_are_looked_up():
    ring = replace(RECORDS[0].things[0], shape="ring", colour="red", size="small", box=(10.0, 10.0, 20.0, 20.0))
    record = replace(RECORDS[0], things=(ring, replace(ring, colour="blue")))
    for claim, told in {
        "There is a red ring.": True, "There is a green ring.": False, "There is no green ring.": True,
        "There is a large red ring.": False, "There is a small red ring at the top left.": True,
        "There is a red ring at the bottom.": False, "The number of rings is 2.": True,
        "The number of rings is 3.": False, "The number of dogs is 1.": None,
        "The number of crosses is zero.": True, "The number of red shapes is 1.": True,
        "The red ring is at the top left.": True, "The ring is blue.": True, "The ring is green.": False,
        "There are at least 1 red rings.": True, "There are at least 2 red rings.": False,
        "The star is green.": None, "Dogs run.": None,
    }.items():  # fmt: skip
        assert is_true(claim, record) is told, claim


def test_mentions_are_counted_one_by_one():
    (ring,) = [replace(RECORDS[0].things[0], shape="ring", colour="red")]
    answer = "A small red ring at the top, a red ring at the left, a blue star."
    assert rate_mentions(answer, [ring]) == Mentions(named=3, wrong=2, there=1, words=16)
    assert rate_mentions("Nothing.", [ring]) == Mentions(named=0, wrong=0, there=1, words=1)


def test_a_thing_named_too_often_is_rejected_as_often_as_it_counts_as_made_up():
    ring = replace(RECORDS[0].things[0], shape="ring", colour="red")
    for num_named in range(1, 5):
        for num_there in range(1, 4):
            answer = ", ".join(["a red ring"] * num_named)
            record = replace(RECORDS[0], things=(ring,) * num_there)
            told = [is_true(claim.text, record) for claim in divide("What do you see?", answer).claims]
            assert told.count(False) == rate_mentions(answer, record.things).wrong == max(num_named - num_there, 0)


@settings(max_examples=20)
@given(st.sampled_from(RECORDS), st.sampled_from(RECORDS))
def test_an_answer_about_another_picture_is_wrong_where_they_differ(one, other):
    mentions = rate_mentions(describe(other.things, *other.picture.size), one.things)
    assert mentions.named == len(other.things)
    things = [sorted((thing.colour, thing.shape) for thing in record.things) for record in (one, other)]
    assert (mentions.wrong == 0) == (len(things[1]) == sum(map(min_count(things[0], things[1]), set(things[1]))))


def min_count(first, second):
    return lambda thing: min(first.count(thing), second.count(thing))


def test_rates_of_known_answers():
    # Three answers: one right, one half wrong, one silent. Response 1 of 2, mention 1 of 3, recall 2 of 5.
    told = [Mentions(named=1, wrong=0, there=1, words=5), Mentions(named=2, wrong=1, there=2, words=9),
            Mentions(named=0, wrong=0, there=2, words=1)]  # fmt: skip
    rates = hallucination(told)
    assert (rates.response, rates.mention, rates.recall, rates.words) == (50.0, 100 / 3, 40.0, 5.0)
    assert math.isnan(hallucination(told[2:]).mention)
