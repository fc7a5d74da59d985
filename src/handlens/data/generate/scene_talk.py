"""Questions about a scene, asked only where exactly one answer is true.

Boundary: sees things and their boxes, never pixels. Yes and no come from a fair coin that is
thrown before the question is made, so no wording and no thing gives the answer away.
"""

from collections.abc import Callable
from random import Random

from handlens.data.generate.language import Language, language
from handlens.data.generate.page import ask
from handlens.data.generate.scene_places import (
    SIDES,
    is_only,
    is_only_shape,
    is_sure,
    lone,
    middle,
    offset,
    place,
    relations,
    third,
)
from handlens.data.generate.scene_speech import cover_turns, talk_in
from handlens.data.records import Thing, Turn

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
COLOURS = (
    "red", "green", "blue", "yellow", "orange", "purple", "black", "white", "brown", "pink", "gray",
)  # fmt: skip

_COLOR = (
    "What color is the {shape}?", "Which color is the {shape}?", "What is the color of the {shape}?",
    "Name the color of the {shape}.", "The {shape} has which color?", "Tell me the {shape}'s color.",
)  # fmt: skip
_SHAPE = (
    "What shape is {colour}?", "Which shape is {colour}?", "What is the {colour} shape?",
    "Name the {colour} shape.", "What is the shape of the {colour} thing?",
    "Which {colour} shape is in the picture?",
)  # fmt: skip
_COUNT = (
    "How many {what} are there?", "How many {what} do you see?", "Count the {what}.",
    "How many {what} are in the picture?", "What is the number of {what}?",
    "How many {what} can you find?",
)  # fmt: skip
_WHERE = (
    "Where is the {what}?", "In which part of the picture is the {what}?",
    "Where do you see the {what}?", "What is the place of the {what}?", "Locate the {what}.",
    "Where in the picture is the {what}?",
)  # fmt: skip
_BESIDE = (
    "What is {side} the {what}?", "Which shape is {side} the {what}?",
    "What do you see {side} the {what}?", "Name the shape {side} the {what}.",
    "What is placed {side} the {what}?",
)  # fmt: skip
_IS_BESIDE = (
    "Is the {one} {side} the {two}?", "Is the {one} placed {side} the {two}?",
    "Do you see the {one} {side} the {two}?", "Can you find the {one} {side} the {two}?",
    "Tell me, is the {one} {side} the {two}?",
)  # fmt: skip
_EXISTS = (
    "Is there {what}?", "Do you see {what}?", "Is there {what} in the picture?",
    "Can you find {what}?", "Does the picture show {what}?", "Is {what} present?",
)  # fmt: skip
_DESCRIBE = (
    "Describe the picture.", "What do you see?", "What is in the picture?",
    "List all shapes with their places.", "What does the picture show?", "Describe the scene.",
)  # fmt: skip
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


__all__ = ["COLOURS", "SHAPES", "describe", "place", "relations", "talk"]


def talk(
    rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int,
    over: tuple[int, int] | None = None, tongue: Language | None = None,
) -> tuple[Turn, ...]:  # fmt: skip
    """Return two to four turns, each of another task; ``over`` is who covers whom."""
    if tongue is not None and tongue.code != "en":
        return talk_in(tongue, rng, things, width_px, height_px, over)
    covered = cover_turns(language("en"), rng, things, over)
    ways: dict[Callable[[], Turn | None], float] = {
        lambda: color_turn(rng, things): 3, lambda: shape_turn(rng, things): 2,
        lambda: count_turn(rng, things): 3, lambda: exists_turn(rng, things): 3,
        lambda: where_turn(rng, things, width_px, height_px): 2,
        lambda: beside_turn(rng, things, width_px, height_px): 2,
        lambda: describe_turn(rng, things, width_px, height_px): 2.5 if len(things) < 5 else 1,
    }  # fmt: skip
    wanted, turns = rng.randint(2, 4), dict[str, Turn]()
    for _ in range(20):
        turn = rng.choices(tuple(ways), tuple(ways.values()))[0]()
        if turn is not None:
            turns.setdefault(turn.task, turn)
        if len(turns) == wanted:
            break
    return (*turns.values(), *covered)


def color_turn(rng: Random, things: tuple[Thing, ...]) -> Turn | None:
    """Ask the colour of a shape that stands alone in its kind."""
    alone = lone(things, "shape")
    if not alone:
        return None
    thing = rng.choice(alone)
    return ask(rng, "scenes.colour", _COLOR, thing.colour, shape=thing.shape)


def shape_turn(rng: Random, things: tuple[Thing, ...]) -> Turn | None:
    """Ask the shape of the only thing of its colour."""
    alone = lone(things, "colour")
    if not alone:
        return None
    thing = rng.choice(alone)
    return ask(rng, "scenes.shape", _SHAPE, thing.shape, colour=thing.colour)


def count_turn(rng: Random, things: tuple[Thing, ...]) -> Turn:
    """Ask how many there are of all, of a shape or of a colour; one in six is zero."""
    roll = rng.random()
    if roll < 0.3:
        return ask(rng, "scenes.count", _COUNT, str(len(things)), what="shapes")
    of_shape = roll < 0.75
    seen = [thing.shape if of_shape else thing.colour for thing in things]
    names = SHAPES if of_shape else COLOURS
    if rng.random() < 0.22:
        name = rng.choice([n for n in names if n not in seen])
    else:
        name = rng.choice(sorted(set(seen), key=lambda n: (seen.count(n), n))[-2:])
    what = plural(name) if of_shape else f"{name} shapes"
    return ask(rng, "scenes.count", _COUNT, str(seen.count(name)), what=what)


def exists_turn(rng: Random, things: tuple[Thing, ...]) -> Turn:
    """Ask for a coloured shape; where it is absent, its colour or its shape is usually there."""
    pairs = {(thing.colour, thing.shape) for thing in things}
    is_there = rng.random() < 0.5
    if is_there:
        colour, shape = rng.choice(sorted(pairs))
    else:
        absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in pairs]
        colours, shapes = {c for c, _ in pairs}, {s for _, s in pairs}
        roll = rng.random()
        if roll < 0.45:
            absent = [pair for pair in absent if pair[0] in colours]
        elif roll < 0.9:
            absent = [pair for pair in absent if pair[1] in shapes]
        colour, shape = rng.choice(absent)
    what = f"{_article(colour)} {colour} {shape}"
    return ask(rng, "scenes.exists", _EXISTS, "yes" if is_there else "no", what=what)


def where_turn(rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int) -> Turn | None:
    """Ask the place of a thing that is well inside one ninth of the picture."""
    sure = [t for t in things if is_sure(t, width_px, height_px) and is_only(t, things)]
    if not sure:
        return None
    thing = rng.choice(sure)
    name = thing.shape if is_only_shape(thing, things) and rng.random() < 0.6 else _name(thing)
    return ask(rng, "scenes.where", _WHERE, place(thing, width_px, height_px), what=name)


def beside_turn(rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int) -> Turn | None:
    """Ask what is on one side of a thing, or whether one thing is on that side of another."""
    known = [t for t in things if is_only(t, things)]
    if len(known) < 2:
        return None
    side = rng.choice(SIDES)
    if rng.random() < 0.5:
        one, two = rng.sample(known, 2)
        if offset(one, two, side, width_px, height_px) < 0:
            one, two = two, one
        if offset(one, two, side, width_px, height_px) < 0.12:
            return None
        is_so = rng.random() < 0.5
        said = side if is_so else _OPPOSITE[side]
        answer = "yes" if is_so else "no"
        return ask(rng, "scenes.where", _IS_BESIDE, answer, one=_name(one), side=said, two=_name(two))
    anchor = rng.choice(known)
    gaps = [(offset(t, anchor, side, width_px, height_px), t) for t in things if t is not anchor]
    there = [t for gap, t in gaps if gap > 0.12]
    unsure = [t for gap, t in gaps if -0.05 < gap <= 0.12]
    if len(there) != 1 or unsure:
        return None
    return ask(rng, "scenes.where", _BESIDE, _name(there[0]), side=side, what=_name(anchor))


def describe_turn(rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int) -> Turn:
    """Ask for everything; the answer lists things row by row, left to right."""
    caption = describe(things, width_px, height_px)
    return ask(rng, "scenes.describe", _DESCRIBE, caption)


def describe(things: tuple[Thing, ...], width_px: int, height_px: int) -> str:
    """Return all things in reading order, each with size, colour, shape and place."""
    ordered = sorted(things, key=lambda t: (third(t, 1, height_px), middle(t)[0]))
    parts = [f"a {t.size} {t.colour} {t.shape} at the {place(t, width_px, height_px)}" for t in ordered]
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def plural(shape: str) -> str:
    """Return the shape's plural.

    >>> plural("cross")
    'crosses'
    """
    return f"{shape}es" if shape.endswith("ss") else f"{shape}s"


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
