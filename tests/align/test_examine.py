"""Open questions about claims: an answerer that knows the picture is a judge that is always right."""

import math
from collections.abc import Sequence

import pytest

from handlens.align.claims import divide, plural
from handlens.align.examine import COLOURS, COUNTS, PLACES, SHAPES, examine
from handlens.align.judge import judge
from handlens.align.truth import is_true
from handlens.answerer import Seen
from handlens.core.chat import Chat
from handlens.data.generate import generate, scene_talk
from handlens.data.generate.scene_places import place
from handlens.data.records import Record

SCENES = [generate("scenes", 8, number) for number in range(12)]


def answers_to(question: str, record: Record) -> list[str]:
    """The words that answer a question about a scene; none where it has no answer."""
    words = question.rstrip("?").split()
    things = record.things
    if question.startswith("What color is the"):
        return [thing.colour for thing in things if thing.shape == words[-1]]
    if question.startswith("What shape is"):
        return [thing.shape for thing in things if thing.colour == words[-1]]
    if question.startswith("Where is the"):
        name = tuple(words[-2:])
        return [place(thing, *record.picture.size) for thing in things if (thing.colour, thing.shape) == name]
    what = question.removeprefix("How many ").removesuffix(" are there?").split()
    return [str(sum(what[0] == plural(one.shape) or what == [one.colour, "shapes"] for one in things))]


def knower(known, record: Record, asked: list[str]):
    """An answerer that knows one scene; where a question has no answer, every word is as likely."""

    def score(chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        question = str(chat[-1].content[-1]).strip()
        asked.append(question)
        told = answers_to(question, record)
        share = [told.count(word) / len(told) if told else 1 / len(continuations) for word in continuations]
        # The first words of an answer are as likely as all answers that begin with them.
        both = list(zip(continuations, share, strict=True))
        begun = [p + sum(q for other, q in both if other.startswith(f"{word} ")) for word, p in both]
        return [math.log(p) if p else -math.inf for p in begun]

    model = known()
    model.score = score
    return model


def test_who_knows_the_picture_judges_every_claim_rightly(known, photo):
    num_false = 0
    for number, record in enumerate(SCENES):
        asked: list[str] = []
        model, seen = knower(known, record, asked), known().see([photo])
        for told in (record, SCENES[number - 1]):
            answer = scene_talk.describe(told.things, *told.picture.size)
            claims = [claim.text for claim in divide("", f"{answer} {answer}").claims]
            claims = [claim for claim in claims if "small" not in claim and "large" not in claim]
            asked.clear()
            for one in judge(model, seen, claims, is_open=True):
                if one.claim.startswith("There are at least"):
                    continue  # asked by shape and by colour alone, so it can be believed where it is false
                assert (one.verdict == "supported") is is_true(one.claim, record), one
                num_false += one.verdict == "rejected"
            assert len(asked) == len(set(asked)), "no question is asked twice"
    assert num_false > 20


def test_a_thing_named_too_often_is_counted(known, photo):
    record = next(one for one in SCENES if len(one.things) == 1)
    thing = record.things[0]
    told = judge(
        knower(known, record, []), known().see([photo]),
        [f"There are at least {count} {thing.colour} {plural(thing.shape)}." for count in (1, 2)], is_open=True,
    )  # fmt: skip
    assert [one.verdict for one in told] == ["supported", "rejected"]
    assert told[1].question == f"How many {plural(thing.shape)} are there? How many {thing.colour} shapes are there?"


@pytest.mark.parametrize(
    ("claim", "questions"),
    [
        ("There is a grey ring.", ["What color is the ring?", "What shape is gray?"]),
        ("There is no red ring.", ["What color is the ring?", "What shape is red?"]),
        ("The ring is blue.", ["What color is the ring?"]),
        ("The red ring is at the center.", ["Where is the red ring?"]),
        ("The number of red shapes is three.", ["How many red shapes are there?"]),
        ("There are at least 2 blue crosses.", ["How many crosses are there?", "How many blue shapes are there?"]),
        ("The number of dogs is 3.", None), ("There is a red dog.", None), ("The total is €15.00.", None),
        ("There is a red ring at the sea.", None), ("The sky is blue.", None), ("The dog is at the top.", None),
    ],
)  # fmt: skip
def test_questions_are_asked_where_they_fit(claim, questions):
    told = examine(claim)
    assert (told and [one.question for one in told.questions]) == questions


def test_probabilities_become_belief():
    """By hand: colour 3 times as likely as chance, shape half as likely: odds 1.5, so 0.6; a negation turns it."""
    positive, negative = examine("There is a red ring."), examine("There is no red ring.")
    assert positive and negative
    assert positive.believed([3.0, 0.5]) == pytest.approx(0.6)
    assert negative.believed([3.0, 0.5]) == pytest.approx(0.4)
    placed = examine("There is a red ring at the top.")
    assert placed and placed.believed([3.0, 0.5, 0.25]) == pytest.approx(0.2), "the weakest part decides"
    where = placed.questions[-1]
    # "top" is 0.9 likely, of which 0.6 go on to "top left" and 0.1 to "top right": 0.2 of 1, 9 words, so 1.8.
    assert where.ratio([{"top": 0.9, "top left": 0.6, "top right": 0.1, "left": 0.1}.get(word, 0.0) for word in PLACES]
                       ) == pytest.approx(1.8)  # fmt: skip


def test_a_judge_that_knows_none_of_the_words_is_asked_with_yes_and_no(known, photo):
    model = known(believe=lambda question: 0.7 if question == "Is there a red ring?" else 0.0)
    (told,) = judge(model, model.see([photo]), ["There is a red ring."], is_open=True)
    assert (told.question, told.verdict) == ("Is there a red ring?", "supported")


def test_the_words_are_those_of_the_generator():
    assert (COLOURS, SHAPES) == (scene_talk.COLOURS, scene_talk.SHAPES)
    places = {place(thing, *record.picture.size) for record in SCENES for thing in record.things}
    assert places <= set(PLACES) and len(COUNTS) == 10
