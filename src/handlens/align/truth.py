"""What a generated record knows about claims and answers: the judge that cannot err.

Boundary: text and records in, yes, no or unknown out; sees no picture and asks no model. Rates of made-up things
follow Object HalBench: per answer (response) and per thing named (mention).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from handlens.align.claims import divide, named_things, plural
from handlens.align.judge import Judgement, question_of
from handlens.data.records import Record, Thing

_THERE_IS = re.compile(
    r"There is (?P<no>no |an? )(?:(?P<size>small|large) )?(?P<colour>\w+) (?P<shape>\w+)"
    r"(?: at the (?P<place>[\w ]+))?\."
)
_AT_LEAST = re.compile(r"There are at least (?P<count>\d+) (?P<colour>\w+) (?P<shapes>\w+)\.")
_COUNT = re.compile(r"The number of (?P<what>[\w ]+) is (?P<number>\w+)\.")
_ATTRIBUTE = re.compile(r"The (?P<what>[\w ]+) is (?P<at>at the )?(?P<value>[\w ]+)\.")
_TEXT = re.compile(r"The picture shows the text “(?P<text>.+)”\.", re.DOTALL)
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_SAME_PLACE = {"middle": "center", "centre": "center"}


def is_true(claim: str, record: Record) -> bool | None:
    """Return whether a claim is true of a record; None where the record does not tell.

    A claim about a scene is compared with its things, printed text with its lines, and everything else with the
    record's own questions and answers, divided as any other answer is.
    """
    if record.things:
        told = _of_things(claim, record)
        if told is not None:
            return told
    if match := _TEXT.fullmatch(claim):
        return _plain(match["text"]) in _plain(" ".join(line.text for line in record.lines))
    return _of_turns(claim, record)


def judge_by_truth(record: Record, claims: Sequence[str]) -> list[Judgement]:
    """Return the judgement of every claim: certain, or unread where the record does not tell."""
    judged = []
    for claim in claims:
        told = is_true(claim, record)
        note = "the record does not tell" if told is None else ""
        one = Judgement(claim=claim, question=question_of(claim), note=note)
        judged.append(replace(one, p_yes=float(told is True), p_no=float(told is False)))
    return judged


@dataclass(frozen=True, kw_only=True)
class Mentions:
    """Things that one answer names, against those that are there."""

    named: int
    wrong: int
    """Named more often than they are there: colour and shape together make a thing."""
    there: int
    words: int

    @property
    def found(self) -> int:
        """True things that are named."""
        return self.named - self.wrong


def rate_mentions(answer: str, things: Sequence[Thing]) -> Mentions:
    """Return what an answer names of a scene; a thing named twice counts twice.

    >>> ring = Thing(shape="ring", colour="red", size="small", box=(0, 0, 1, 1))
    >>> rate_mentions("A small red ring at the top, a red ring and a blue star.", [ring])
    Mentions(named=3, wrong=2, there=1, words=14)
    """
    named = Counter((_colour(colour), shape) for colour, shape in named_things(answer))
    there = Counter((thing.colour, thing.shape) for thing in things)
    wrong = sum((named - there).values())
    return Mentions(named=sum(named.values()), wrong=wrong, there=sum(there.values()), words=len(answer.split()))


@dataclass(frozen=True, kw_only=True)
class Hallucination:
    """Rates in percent over many answers; NaN where nothing was named."""

    response: float
    """Answers with something made up, among answers that name something."""
    mention: float
    """Made-up things, among all that are named."""
    recall: float
    """Things that are there and named, among all that are there: silence must not look like truth."""
    words: float
    """Mean length of an answer."""


def hallucination(mentions: Sequence[Mentions]) -> Hallucination:
    """Return the rates of Object HalBench over answers (arXiv 2405.17220, section 4.1)."""
    naming = [one for one in mentions if one.named]
    named, there = sum(one.named for one in mentions), sum(one.there for one in mentions)
    return Hallucination(
        response=_percent(sum(one.wrong > 0 for one in naming), len(naming)),
        mention=_percent(sum(one.wrong for one in mentions), named),
        recall=_percent(sum(one.found for one in mentions), there),
        words=sum(one.words for one in mentions) / len(mentions) if mentions else math.nan,
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def _of_things(claim: str, record: Record) -> bool | None:
    from handlens.data.generate.scene_places import place

    size = record.picture.size
    if match := _THERE_IS.fullmatch(claim):
        wanted = _SAME_PLACE.get(match["place"] or "", match["place"])
        fits = [
            thing
            for thing in record.things
            if (thing.colour, thing.shape) == (_colour(match["colour"]), match["shape"])
            and match["size"] in (None, thing.size)
            and wanted in (None, place(thing, *size))
        ]
        return not fits if match["no"] == "no " else bool(fits)
    if match := _AT_LEAST.fullmatch(claim):
        colour, shapes = _colour(match["colour"]), match["shapes"]
        same = [thing for thing in record.things if (thing.colour, plural(thing.shape)) == (colour, shapes)]
        return len(same) >= int(match["count"])
    if match := _COUNT.fullmatch(claim):
        count = _num_of(match["what"], record.things)
        number = match["number"].lower()
        said = _NUMBERS.index(number) if number in _NUMBERS else int(number) if number.isdigit() else None
        return None if count is None or said is None else count == said
    if match := _ATTRIBUTE.fullmatch(claim):
        fits = [thing for thing in record.things if match["what"] in (thing.shape, f"{thing.colour} {thing.shape}")]
        if not fits:
            return None
        wanted = _SAME_PLACE.get(match["value"], match["value"])
        return any(wanted == (place(thing, *size) if match["at"] else thing.colour) for thing in fits)
    return None


def _colour(word: str) -> str:
    return "gray" if word == "grey" else word


def _num_of(what: str, things: Sequence[Thing]) -> int | None:
    """Return how many there are of ``shapes``, ``red shapes``, ``rings`` or ``red rings``; None where it is unclear."""
    from handlens.data.generate.scene_talk import SHAPES

    *words, last = what.split()
    if len(words) > 1:
        return None
    colour = _colour(words[0]) if words else ""
    if last in ("shapes", "things"):
        return sum(colour in ("", thing.colour) for thing in things)
    names = [name for name in SHAPES if last in (name, plural(name))]
    return sum(thing.shape in names and colour in ("", thing.colour) for thing in things) if names else None


def _of_turns(claim: str, record: Record) -> bool | None:
    """Compare a claim with those of the record's own answers: the same one is true, another end makes it false."""
    begun = claim.rpartition(" is ")[0]
    same_beginning = False
    for turn in record.turns:
        for true in divide(turn.question, turn.answer).claims:
            if _plain(true.text) == _plain(claim):
                return True
            same_beginning |= bool(begun) and true.text.rpartition(" is ")[0] == begun
    return False if same_beginning else None


def _plain(text: str) -> str:
    return " ".join(text.split())
