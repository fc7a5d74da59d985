"""A language model as splitter: its replies are checked, asked for again, and never trusted with a new fact."""

import pytest

from handlens.align.divide import QUESTION, SPLIT, DivideOne, by_model, by_rules, count_divisions, divide_all
from handlens.align.journal import Journal
from handlens.errors import ModelError

ANSWER = "A brown dog sleeps on the sofa. I think it is happy."


class Scripted:
    """Replies to the splitting prompt in turn, and to every question prompt with one text."""

    def __init__(self, *replies: str | Exception, question: str = "") -> None:
        self.replies, self.question, self.temperatures = list(replies), question, []

    def __call__(self, prompt: str, max_tokens: int, temperature: float) -> str:
        if prompt.startswith(QUESTION[:40]):
            return self.question
        assert prompt == SPLIT.format(question="What do you see?", answer=ANSWER)
        self.temperatures.append(temperature)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


GOOD = "Facts:\n- There is a brown dog.\n- The dog sleeps on the sofa.\n- I think it is happy."


def texts(divided) -> list[str]:
    return [claim.text for claim in divided.division.claims]


def test_a_list_of_facts_becomes_claims_and_questions():
    divided = by_model(Scripted(GOOD), "What do you see?", ANSWER)
    assert texts(divided)[:2] == ["There is a brown dog.", "The dog sleeps on the sofa."]
    assert divided.questions[0] == "Is there a brown dog?" and divided.retried == ()
    assert divided.division.claims[0].end == len("A brown dog sleeps on the sofa.")


def test_an_added_fact_is_asked_for_again_and_never_kept():
    bad = "Facts:\n- There is a brown dog.\n- The dog sleeps on the red sofa.\n- I think it is happy."
    say = Scripted(bad, GOOD)
    assert by_model(say, "What do you see?", ANSWER).retried == ("facts added",)
    assert say.temperatures == [0.0, 0.3]
    stubborn = by_model(Scripted(bad, bad, bad), "What do you see?", ANSWER)
    assert "red" in stubborn.division.added and not any("red" in text for text in texts(stubborn))
    assert stubborn.division.lost == ("sleeps", "sofa")


def test_a_lost_fact_is_asked_for_again_and_told():
    short = by_model(Scripted(*["- There is a brown dog."] * 3), "What do you see?", ANSWER)
    assert short.retried == ("facts lost",) * 3
    assert set(short.division.lost) >= {"sleeps", "sofa"}


@pytest.mark.parametrize(
    ("reply", "why"),
    [("", "no reply"), ("As a model I cannot.", "nonsense"), (ModelError("cannot reach it (timed out)"), "no reply")],
)
def test_nonsense_is_asked_for_again_and_then_unread(reply, why):
    assert texts(by_model(Scripted(reply, GOOD), "What do you see?", ANSWER))
    divided = by_model(Scripted(reply, reply, reply), "What do you see?", ANSWER)
    assert divided.division.status == "unread" and divided.retried == (why,) * 3


def test_none_is_an_answer_without_a_claim():
    assert by_model(Scripted("Facts: NONE"), "What do you see?", ANSWER).division.status == "no_claim"
    assert by_model(Scripted(), "What do you see?", " ").division.status == "empty"


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ("Question: Is a brown dog there?", "Is a brown dog there?"),
        ("Is there no brown dog?", "Is there a brown dog?"),
        ("Question: Is there a dog?", "Is there a brown dog?"),
        ("no idea", "Is there a brown dog?"),
    ],
)
def test_a_question_that_changes_the_claim_is_not_used(told, used):
    assert by_model(Scripted(GOOD, question=told), "What do you see?", ANSWER).questions[0] == used


def test_rows_are_divided_once_and_counted(tmp_path):
    row = {"id": "p", "question": "What?", "status": "ok", "answers": [
        {"text": "A red ring."}, {"text": "A red ring."}, {"text": ""}, {"text": "Of course!"}]}  # fmt: skip
    gone = {"id": "q", "question": "What?", "status": "no_picture", "answers": []}
    journal = Journal(tmp_path / "claims.jsonl", {"divider": "rules"})
    counts = divide_all([row, gone], "rules", journal)
    assert counts["answers"] == 4 and counts["ok"] == 2 and counts["empty"] == 1 and counts["no_claim"] == 1
    assert list(journal.rows) == ["p"]
    again = Journal(tmp_path / "claims.jsonl", {"divider": "rules"})
    assert again.rows == journal.rows and count_divisions(again.rows.values()) == counts
    assert again.rows["p"]["answers"][0]["claims"] == [
        {"text": "There is a red ring.", "start": 0, "end": 10, "question": "Is there a red ring?"}
    ]


def test_a_whole_answer_is_one_claim():
    row = {"id": "p", "question": "What?", "answers": [{"text": "A red ring, a blue star."}]}
    (answer,) = DivideOne("whole")(row)["answers"]
    assert [claim["text"] for claim in answer["claims"]] == ["A red ring, a blue star."]
    assert answer["claims"][0]["question"] == "Is this true of the picture: “A red ring, a blue star”?"
    assert by_rules("What?", "A red ring.").questions == ("Is there a red ring?",)
