"""Questions about a scene in the languages beside English, and about what covers what in all.

Boundary: sees things, boxes and the language; never pixels. Yes and no come from a fair coin that
is thrown before the question is made.
"""

from random import Random

from handlens.data.generate.language import Language
from handlens.data.generate.scene_places import CLEAR, SIDES, is_only, is_sure, lone, middle, offset, third
from handlens.data.records import Thing, Turn

_KEYS = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


def talk_in(
    tongue: Language,
    rng: Random,
    things: tuple[Thing, ...],
    width_px: int,
    height_px: int,
    over: tuple[int, int] | None,
) -> tuple[Turn, ...]:
    """Return two to four turns in a language, each of another task."""
    turns = [
        tongue.ask(rng, "scenes.count", "all", str(len(things))), _count(tongue, rng, things),
        _exists(tongue, rng, things),
        *_colour(tongue, rng, things), *_shape(tongue, rng, things), *_where(tongue, rng, things, width_px, height_px),
        *_side(tongue, rng, things, width_px, height_px), _describe(tongue, rng, things, width_px, height_px),
    ]  # fmt: skip
    rng.shuffle(turns)
    kept = {turn.task: turn for turn in turns}
    return (*list(kept.values())[: rng.randint(2, 4)], *cover_turns(tongue, rng, things, over))


def cover_turns(
    tongue: Language, rng: Random, things: tuple[Thing, ...], over: tuple[int, int] | None
) -> tuple[Turn, ...]:
    """Ask which of two things is in front, or whether one is partly hidden; yes as often as no."""
    if over is None or not all(is_only(things[i], things) for i in over):
        return ()
    upper, lower = (things[i] for i in over)
    if rng.random() < 0.5:
        names = [tongue.thing(thing.shape, thing.colour) for thing in (upper, lower)]
        one, two = rng.sample(names, 2)
        return (tongue.ask(rng, "scenes.front", "front", names[0], one=one, two=two),)
    is_so = rng.random() < 0.5
    asked = lower if is_so else upper
    return (tongue.ask(rng, "scenes.hidden", "hidden", tongue.yes(is_so), the=tongue.thing(asked.shape, asked.colour)),)


def _colour(tongue: Language, rng: Random, things: tuple[Thing, ...]) -> list[Turn]:
    alone = lone(things, "shape")
    if not alone:
        return []
    thing = rng.choice(alone)
    return [
        tongue.ask(rng, "scenes.colour", "colour", tongue.colours[thing.colour], the=tongue.thing(thing.shape, None))
    ]


def _shape(tongue: Language, rng: Random, things: tuple[Thing, ...]) -> list[Turn]:
    alone = lone(things, "colour")
    if not alone:
        return []
    thing = rng.choice(alone)
    return [tongue.ask(rng, "scenes.shape", "shape", tongue.shapes[thing.shape], colour=tongue.colours[thing.colour])]


def _count(tongue: Language, rng: Random, things: tuple[Thing, ...]) -> Turn:
    seen = [thing.shape for thing in things]
    absent = [shape for shape in tongue.shapes if shape not in seen]
    shape = rng.choice(absent if rng.random() < 0.22 else sorted(set(seen)))
    return tongue.ask(rng, "scenes.count", "count", str(seen.count(shape)), what=tongue.thing(shape, None, way="many"))


def _exists(tongue: Language, rng: Random, things: tuple[Thing, ...]) -> Turn:
    """Ask for a coloured shape; where it is absent, its colour or its shape is usually there."""
    pairs = {(thing.colour, thing.shape) for thing in things}
    is_there = rng.random() < 0.5
    if is_there:
        colour, shape = rng.choice(sorted(pairs))
    else:
        absent = [(c, s) for c in tongue.colours for s in tongue.shapes if (c, s) not in pairs]
        near = [(c, s) for c, s in absent if any(c == there or s == also for there, also in pairs)]
        colour, shape = rng.choice(near if near and rng.random() < 0.9 else absent)
    return tongue.ask(rng, "scenes.exists", "exists", tongue.yes(is_there), what=tongue.thing(shape, colour, way="a"))


def _where(tongue: Language, rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int) -> list[Turn]:
    places = tongue.facts.get("places")
    sure = [t for t in things if is_sure(t, width_px, height_px) and is_only(t, things)]
    if not places or not sure:
        return []
    thing = rng.choice(sure)
    cell = third(thing, 1, height_px) * 3 + third(thing, 0, width_px)
    return [tongue.ask(rng, "scenes.where", "where", places[cell], the=tongue.thing(thing.shape, thing.colour))]


def _side(tongue: Language, rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int) -> list[Turn]:
    known = [t for t in things if is_only(t, things)]
    if len(known) < 2:
        return []
    side = rng.choice(SIDES)
    one, two = rng.sample(known, 2)
    is_so = rng.random() < 0.5
    if (offset(one, two, side, width_px, height_px) > 0) != is_so:
        one, two = two, one
    if abs(offset(one, two, side, width_px, height_px)) < CLEAR:
        return []
    names = {"one": tongue.thing(one.shape, one.colour), "two": tongue.thing(two.shape, two.colour)}
    return [tongue.ask(rng, "scenes.side", _KEYS[side], tongue.yes(is_so), **names)]


def _describe(tongue: Language, rng: Random, things: tuple[Thing, ...], width_px: int, height_px: int) -> Turn:
    """Ask for everything; the answer lists things row by row, left to right."""
    ordered = sorted(things, key=lambda t: (third(t, 1, height_px), middle(t)[0]))
    places = tongue.facts.get("places")
    parts = []
    for thing in ordered:
        name = tongue.thing(thing.shape, thing.colour, way="a")
        cell = third(thing, 1, height_px) * 3 + third(thing, 0, width_px)
        parts.append(f"{name} {places[cell]}" if places else name)
    return tongue.ask(rng, "scenes.describe", "describe", ", ".join(parts))
