"""Claims about scenes to open questions: which colour, which shape, where, how many.

Boundary: a claim in, questions with their choices out, and what the probabilities of the choices say of the claim. Asks
nobody; ``judge.py`` does. A small model leans to one answer whatever a yes/no question asks; of several words it tells
the right one apart, because no word is always right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from handlens.align.claims import plural

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white", "brown", "pink", "gray")
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
COUNTS = tuple("0123456789")
_NUMBERS = "zero one two three four five six seven eight nine".split()
_SAME = {"grey": "gray", "middle": "center", "centre": "center"}
_THING = re.compile(
    r"There is (?P<no>no |an? )(?:(?:small|large) )?(?P<colour>\w+) (?P<shape>\w+)(?: at the (?P<place>[\w ]+))?\."
)
_AT_LEAST = re.compile(r"There are at least (?P<count>\d) (?P<colour>\w+) (?P<shapes>\w+)\.")
_COUNT = re.compile(r"The number of (?P<what>[\w ]+) is (?P<count>\w+)\.")
_WHERE = re.compile(r"The (?P<what>[\w ]+) is at the (?P<place>[\w ]+)\.")
_COLOUR = re.compile(r"The (?P<what>[\w ]+) is (?P<colour>\w+)\.")


@dataclass(frozen=True, kw_only=True)
class OpenQuestion:
    """A question, the words that answer it, and those that fit the claim."""

    question: str
    choices: tuple[str, ...]
    fitting: tuple[str, ...]
    chance: float
    """Share of the fitting words for a model that knows nothing."""

    def ratio(self, probabilities: Sequence[float]) -> float:
        """Return how much likelier than by chance the fitting words are; 1 says nothing.

        >>> colour = OpenQuestion(question="?", choices=("red", "blue"), fitting=("red",), chance=0.5)
        >>> round(colour.ratio([0.3, 0.1]), 6)
        1.5
        """
        told = dict(zip(self.choices, probabilities, strict=True))
        # Where the answer could go on ("top" to "top left"), the longer words are taken out of the shorter one.
        alone = {word: max(p - sum(told[w] for w in told if w.startswith(f"{word} ")), 0.0) for word, p in told.items()}
        whole = sum(alone.values())
        return sum(alone[word] for word in self.fitting) / whole / self.chance if whole > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The questions about one claim: ratios multiply within a part, and the weakest part decides."""

    parts: tuple[tuple[OpenQuestion, ...], ...]
    is_negated: bool = False

    @property
    def questions(self) -> tuple[OpenQuestion, ...]:
        """Every question, in order."""
        return tuple(question for part in self.parts for question in part)

    def believed(self, ratios: Sequence[float]) -> float:
        """Return the probability that the claim is true, of ratios in the order of ``questions``.

        True and false are taken as equally likely before anything is asked.
        """
        left, odds = list(ratios), float("inf")
        for part in self.parts:
            product = 1.0
            for _ in part:
                product *= left.pop(0)
            odds = min(odds, product)
        share = odds / (1 + odds)
        return 1 - share if self.is_negated else share


def examine(claim: str) -> Examination | None:
    """Return the open questions about a claim; None where none fit, so that it has to be asked with yes or no.

    A size is not asked for: the claim is worth what the thing is worth.

    >>> [one.question for one in examine("There is a small red ring at the top.").questions]
    ['What color is the ring?', 'What shape is red?', 'Where is the red ring?']
    """
    if match := _THING.fullmatch(claim):
        colour, shape = _same(match["colour"]), match["shape"]
        if colour not in COLOURS or shape not in SHAPES:
            return None
        parts: list[tuple[OpenQuestion, ...]] = [
            (_colour_of(shape, colour), _which(f"What shape is {colour}?", SHAPES, shape))
        ]
        if match["place"]:
            place = _same(match["place"])
            if place not in PLACES or match["no"] == "no ":
                return None
            parts.append((_which(f"Where is the {colour} {shape}?", PLACES, place),))
        return Examination(parts=tuple(parts), is_negated=match["no"] == "no ")
    if match := _AT_LEAST.fullmatch(claim):
        colour, shapes = _same(match["colour"]), match["shapes"]
        if colour not in COLOURS or shapes not in map(plural, SHAPES):
            return None
        return Examination(parts=tuple((_at_least(what, match["count"]),) for what in (shapes, f"{colour} shapes")))
    if match := _COUNT.fullmatch(claim):
        word = match["count"].lower()
        count = str(_NUMBERS.index(word)) if word in _NUMBERS else word
        is_known = count in COUNTS and match["what"].split()[-1] in ("shapes", *map(plural, SHAPES))
        return _one(_which(f"How many {match['what']} are there?", COUNTS, count)) if is_known else None
    if (match := _WHERE.fullmatch(claim)) and _is_thing(match["what"]) and _same(match["place"]) in PLACES:
        return _one(_which(f"Where is the {match['what']}?", PLACES, _same(match["place"])))
    if (match := _COLOUR.fullmatch(claim)) and match["what"] in SHAPES and _same(match["colour"]) in COLOURS:
        return _one(_colour_of(match["what"], _same(match["colour"])))
    return None


def _same(word: str) -> str:
    return _SAME.get(word, word)


def _is_thing(what: str) -> bool:
    *before, last = what.split()
    return last in SHAPES and (not before or (len(before) == 1 and before[0] in COLOURS))


def _one(question: OpenQuestion) -> Examination:
    return Examination(parts=((question,),))


def _which(question: str, choices: tuple[str, ...], fitting: str) -> OpenQuestion:
    return OpenQuestion(question=question, choices=choices, fitting=(fitting,), chance=1 / len(choices))


def _colour_of(shape: str, colour: str) -> OpenQuestion:
    return _which(f"What color is the {shape}?", COLOURS, colour)


def _at_least(what: str, count: str) -> OpenQuestion:
    return OpenQuestion(
        question=f"How many {what} are there?", choices=COUNTS, fitting=COUNTS[int(count) :], chance=0.5
    )
