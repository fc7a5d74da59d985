"""An answer with its verdicts: what is kept, what is shown, what programs get."""

import pytest

from handlens.align.check import check, checked_to_json, describe, without

ANSWER = "A red ring at the top left, a blue star and a green heart."


@pytest.mark.parametrize(
    ("answer", "gone", "left"),
    [
        (ANSWER, ["A red ring at the top left"], "A blue star and a green heart."),
        (ANSWER, ["a blue star"], "A red ring at the top left and a green heart."),
        (ANSWER, ["a green heart"], "A red ring at the top left, a blue star."),
        (ANSWER, ["A red ring at the top left", "a blue star"], "A green heart."),
        ("A dog. A cat.", ["A dog."], "A cat."),
        ("A dog. A cat.", ["A dog.", "A cat."], ""),
        ("A dog.", [], "A dog."),
    ],
)
def test_what_is_left_reads_as_a_sentence(answer, gone, left):
    assert without(answer, {(answer.index(part), answer.index(part) + len(part)) for part in gone}) == left


def test_rejected_claims_leave_the_answer_and_all_are_told(photo, known):
    model = known(believe=lambda question: 0.1 if "star" in question else 0.8)
    checked = check(model, model.see([photo]), "What do you see?", ANSWER)
    assert checked.num_rejected == 1 and checked.num_unread == 0
    assert checked.kept == "A red ring at the top left and a green heart."
    told = checked_to_json(checked)
    assert [one["text"] for one in told["claims"]][-2:] == ["There is a blue star.", "There is a green heart."]
    assert told["claims"][2] == {
        "text": "There is a blue star.", "verdict": "rejected", "probability": 0.1, "slice": None,
        "question": "Is there a blue star?",
    }  # fmt: skip
    assert told["check"]["kept"] == checked.kept
    assert describe(checked)[2].split() == "REJECTED 10% There is a blue star. [no slice]".split()


def test_another_model_may_judge(photo, known):
    policy, other = known(believe=lambda question: 0.9), known(believe=lambda question: 0.1)
    checked = check(
        policy, policy.see([photo]), "What?", "A red ring.", judge_with=other, judge_seen=other.see([photo])
    )
    assert checked.num_rejected == 1 and policy.scores == 0


def test_an_answer_without_claims_is_told_as_such(photo, known):
    model = known()
    checked = check(model, model.see([photo]), "What?", "  ")
    assert checked_to_json(checked)["check"]["status"] == "empty"
    assert describe(checked) == ["  nothing to check: the answer holds no text"]
