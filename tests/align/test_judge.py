"""Claims to verdicts: forms are added up, failures are unread and told, figures agree with their definitions."""

import itertools
import math
import random

import pytest

from handlens.align.judge import (
    Judgement,
    accuracy,
    area_under_curve,
    calibrate,
    calibration_error,
    judge,
    question_of,
)
from handlens.errors import ModelError, SettingError


@pytest.mark.parametrize(
    ("claim", "question"),
    [
        ("There is a red ring.", "Is there a red ring?"),
        ("There is no red ring.", "Is there no red ring?"),
        ("The total is €15.00.", "Is the total €15.00?"),
        ("Paris was large.", "Was Paris large?"),
        ("The dog has a ball.", "Has the dog a ball?"),
        ("The picture shows the text “MILK is 2”.", "Does the picture show the text “MILK is 2”?"),
        ("The answer to “Is it red?” is “no”.", "Is “no” the answer to “Is it red?”?"),
        ("Dogs run.", "Is this true of the picture: “Dogs run”?"),
    ],
)
def test_a_claim_becomes_a_question_with_its_tense_and_negation(claim, question):
    assert question_of(claim) == question


def test_surface_forms_are_added_up(photo, known):
    told = {"yes": 0.3, "Yes": 0.2, "no": 0.4, "No": 0.05}

    class Forms(known):
        def score(self, chat, seen, continuations):
            return [math.log(told[text]) for text in continuations]

    model = Forms()
    (one,) = judge(model, model.see([photo]), ["There is a dog."])
    assert one.p_yes == pytest.approx(0.5) and one.p_no == pytest.approx(0.45)
    assert one.verdict == "supported" and one.probability == pytest.approx(0.5 / 0.95)
    # "No" alone is likelier than no form of yes alone, and still the sum decides.
    (fewer,) = judge(model, model.see([photo]), ["There is a dog."], yes=["Yes"], no=["no", "No"])
    assert fewer.verdict == "rejected"
    with pytest.raises(SettingError, match="at least one surface form of yes and one of no"):
        judge(model, model.see([photo]), ["There is a dog."], yes=[])


@pytest.fixture
def broken(known):
    """Fails the first ``times`` times, then no more."""

    class Broken(known):
        def __init__(self, times: int) -> None:
            super().__init__(believe=lambda question: 0.9)
            self.times = times

        def score(self, chat, seen, continuations):
            self.times -= 1
            if self.times >= 0:
                raise ModelError("cannot reach http://nowhere (timed out)")
            return super().score(chat, seen, continuations)

    return Broken


def test_a_judge_that_fails_is_asked_again_and_then_leaves_the_claim_unread(photo, broken):
    again = broken(2)
    assert judge(again, again.see([photo]), ["There is a dog."])[0].verdict == "supported"
    dead = broken(10**6)
    first, second = judge(dead, dead.see([photo]), ["There is a dog.", "There is a cat."])
    assert first.verdict == second.verdict == "unread"
    assert first.probability is None and first.note == "cannot reach http://nowhere (timed out)"


def test_probabilities_that_are_no_numbers_are_no_verdict(photo, known):
    class Nan(known):
        def score(self, chat, seen, continuations):
            return [math.nan] * len(continuations)

    (one,) = judge(Nan(), Nan().see([photo]), ["There is a dog."])
    assert one.verdict == "unread" and "not a number" in one.note
    silent = known(believe=lambda question: 0.0)
    silent.score = lambda chat, seen, continuations: [-math.inf] * len(continuations)
    (one,) = judge(silent, silent.see([photo]), ["There is a dog."])
    assert one.verdict == "unread" and one.note == "the judge gives neither yes nor no a probability"


def test_an_endpoint_that_tells_some_forms_only_is_asked_one_by_one(photo, known):
    class Some(known):
        def score(self, chat, seen, continuations):
            if set(continuations) - {"yes", "No"}:
                raise SettingError("tells no probability of 'Yes'")
            return [math.log({"yes": 0.6, "No": 0.1}[text]) for text in continuations]

    (one,) = judge(Some(), Some().see([photo]), ["There is a dog."])
    assert (round(one.p_yes, 6), round(one.p_no, 6)) == (0.6, 0.1)


def test_equal_shares_are_a_rejection():
    assert Judgement(claim="", question="", p_yes=0.4, p_no=0.4).verdict == "rejected"


def test_the_area_is_the_share_of_pairs_in_order():
    draw = random.Random(3)
    for _ in range(20):
        probabilities = [round(draw.random(), 1) for _ in range(15)]
        truths = [draw.random() < 0.5 for _ in range(15)]
        pairs = [
            (p, q)
            for (p, one), (q, other) in itertools.product(zip(probabilities, truths, strict=True), repeat=2)
            if one and not other
        ]
        if pairs:
            expected = sum(1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs) / len(pairs)
            assert area_under_curve(probabilities, truths) == pytest.approx(expected)
    assert math.isnan(area_under_curve([0.5], [True]))


def test_calibration_of_a_judge_that_knows_its_odds():
    # Ten claims at 0.7, seven of them true: no error; all at 1.0 would be wrong in three of ten.
    truths = [True] * 7 + [False] * 3
    assert calibration_error([0.7] * 10, truths) == pytest.approx(0.0)
    assert calibration_error([1.0] * 10, truths) == pytest.approx(0.3)
    assert accuracy([0.7] * 10, truths) == 0.7
    assert calibrate([0.7] * 10, truths).num == 10
    with pytest.raises(SettingError, match="it must be between 0 and 1"):
        calibrate([1.5], [True])
    with pytest.raises(SettingError, match="give one for each"):
        calibrate([0.5], [])
