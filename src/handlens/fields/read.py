"""The verb: read every field of a schema from a picture, with evidence, looking twice where it is not sure.

Boundary: a ``Model``, a picture and a schema in; plain values out. The steps are in the other files of this folder.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from handlens.answerer import Seen
from handlens.core.images import Picture
from handlens.errors import ImageError, SettingError
from handlens.fields.answers import FieldAnswer, Fields
from handlens.fields.calibration import Calibration, calibration_of, case_of, logit
from handlens.fields.forms import NOT_PRESENT
from handlens.fields.places import Box, Place, find_places, inside, widened
from handlens.fields.reading import Reader, Reading
from handlens.fields.schema import Field, fields_of

if TYPE_CHECKING:
    from handlens.asking import Model, Viewable

UNSURE = 0.9
"""An answer that is less sure than this is looked at again."""
STANDS_OUT = 0.6
"""A part of an enlarged slice is given as the box where its share is at least this; else the slice is."""


def read_fields(
    model: "Model",
    image: "Viewable",
    schema: Mapping[str, Any],
    *,
    max_slices: int | None = None,
    find: bool = True,
    look_again_below: float = UNSURE,
    max_tokens: int = 64,
    calibration: Calibration | None = None,
    seen: Seen | None = None,
    before_each: Callable[[], None] | None = None,
) -> Fields:
    """Return every field of the schema with its value, confidence and place.

    Args:
        model: what is asked.
        image: one picture.
        schema: a JSON schema with ``properties``.
        max_slices: most slices of the picture; None takes the model's.
        find: look for the slice that each value was read from: one short question per field and slice.
        look_again_below: an answer with less confidence is asked again on its slice, enlarged; 0 never does.
        max_tokens: longest value.
        calibration: None takes the one that belongs to the weights, where there is one.
        seen: the picture as ``model.look`` encoded it; saves encoding it again.
        before_each: called before every question to the model; what it raises ends the reading.

    Raises:
        SettingError: the schema cannot be used, or the model cannot be held to a form.
        ImageError: the picture cannot be read, or is not one.
    """
    from handlens.asking import as_picture

    if isinstance(image, Sequence) and not isinstance(image, str | bytes):
        raise ImageError(f"{len(image)} pictures are given; fields are read from one, call again for each")
    if not 0 <= look_again_below <= 1:
        raise SettingError(
            f"look_again_below is {look_again_below}; a confidence from 0 (never) to 1 (always) is needed"
        )
    begin = time.perf_counter()
    fields, picture, reader = (
        fields_of(schema),
        as_picture(image),
        Reader(model, max_tokens=max_tokens, before_each=before_each),
    )
    calibration = calibration_of(model.folder) if calibration is None else calibration
    seen = seen or model.see([picture], max_slices=max_slices)
    with holding(model):
        readings = [reader.read(field, seen) for field in fields]
        answers = [_once(field, reading, calibration) for field, reading in zip(fields, readings, strict=True)]
        unsure = [place for place, one in enumerate(answers) if one.confidence < look_again_below]
        places: list[Place | None] = [None] * len(fields)
        wanted = [place for place in range(len(fields)) if (find and readings[place].is_present) or place in unsure]
        found = find_places(reader, seen, [(fields[place], readings[place].text) for place in wanted])
        for place, where in zip(wanted, found, strict=True):
            places[place] = where
    answers = [_placed(one, where if find else None) for one, where in zip(answers, places, strict=True)]
    if unsure:
        again = _look_again(reader, picture, seen, [(fields[place], places[place]) for place in unsure], find=find)
        for place, (second, where, box) in zip(unsure, again, strict=True):
            answers[place] = _joined(answers[place], second, where, box, calibration)
    return Fields(
        answers=tuple(answers), is_calibrated=calibration.is_fitted, seen=seen, seconds=time.perf_counter() - begin
    )


@contextlib.contextmanager
def holding(model: "Model") -> Iterator[None]:
    """Keep the language half open between questions, and release it after them unless the user holds it."""
    answerer: Any = model.answerer
    if not hasattr(answerer, "keep") or answerer.keep:
        yield
        return
    answerer.keep = True
    try:
        yield
    finally:
        answerer.close()
        answerer.keep = False


def _once(field: Field, reading: Reading, calibration: Calibration) -> FieldAnswer:
    case = case_of(is_present=reading.is_present, looks=1, agree=True)
    return _answer(field, reading.text, reading.probability, case, (reading,), calibration)


def _answer(
    field: Field, text: str, probability: float, case: str, readings: tuple[Reading, ...], calibration: Calibration
) -> FieldAnswer:
    confidence = calibration.confidence(case, probability)
    is_present = text != NOT_PRESENT
    absent = sum(reading.absent for reading in readings) / len(readings)
    # A value that is right leaves no room for the field to be absent.
    missing = min(calibration.confidence("missing", absent), 1 - confidence) if is_present else confidence
    return FieldAnswer(
        field=field, text=text, value=field.form.parse(text) if is_present else None, confidence=confidence,
        not_present=missing, probability=probability, place=None, box=None, case=case, readings=readings,
    )  # fmt: skip


def _placed(answer: FieldAnswer, where: Place | None) -> FieldAnswer:
    return replace(answer, place=where, box=where.box) if where and answer.is_present else answer


def _look_again(
    reader: Reader, picture: Picture, seen: Seen, unsure: Sequence[tuple[Field, Place | None]], *, find: bool
) -> list[tuple[Reading, Place, Box]]:
    """Return for each field what its slice, enlarged, says: the answer, the place before and the finer box."""
    plan, model = seen.pictures[0].plan, reader.model
    regions = {box: _enlarged(picture, box, model.info.side_px)
               for box in dict.fromkeys(widened(where.box, plan) for _, where in unsure if where)}  # fmt: skip
    looked = {box: model.see([part]) for box, part in regions.items()}
    results: dict[int, tuple[Reading, Place, Box]] = {}
    with holding(model):
        for region, part in looked.items():
            here = [(number, field, where) for number, (field, where) in enumerate(unsure)
                    if where and widened(where.box, plan) == region]  # fmt: skip
            read = [(field, reader.read(field, part)) for _, field, _ in here]
            pairs = [(field, reading.text) for field, reading in read]
            small = part.pictures[0].plan
            finer = find_places(reader, part, pairs) if find else [None] * len(pairs)
            for (number, _, where), (_, reading), fine in zip(here, read, finer, strict=True):
                stands_out = fine is not None and small.grid is not None and fine.share >= STANDS_OUT
                results[number] = (
                    reading,
                    where,
                    inside(region, fine.box, small) if fine and stands_out else where.box,
                )
    return [results[number] for number in range(len(unsure))]


def _enlarged(picture: Picture, box: Box, side_px: int) -> Picture:
    """Return a part of a picture, at least so large that it is seen in four slices."""
    part = picture.image.crop(box)
    factor = max(1.0, 2 * side_px / math.sqrt(part.width * part.height))
    size = (max(1, round(part.width * factor)), max(1, round(part.height * factor)))
    return Picture(part.resize(size, Image.Resampling.BICUBIC), f"a part of {picture.name}")


def _joined(first: FieldAnswer, second: Reading, where: Place, box: Box, calibration: Calibration) -> FieldAnswer:
    """Return what both looks say: if they agree the mean of their log-odds, else the likelier answer."""
    (reading,) = first.readings
    agree = _same(first.field, reading, second)
    chosen = reading if agree or reading.probability >= second.probability else second
    probability = chosen.probability
    if agree:
        z = (logit(reading.probability) + logit(second.probability)) / 2
        probability = 1 / (1 + math.exp(-z))
    case = case_of(is_present=chosen.is_present, looks=2, agree=agree)
    joined = _answer(first.field, chosen.text, probability, case, (reading, second), calibration)
    if not chosen.is_present:
        return joined
    if first.place is None and chosen is reading:  # places were not asked for
        return joined
    is_finer = agree or chosen is second
    return replace(joined, place=where, box=box if is_finer else first.box)


def _same(field: Field, one: Reading, two: Reading) -> bool:
    if one.is_present != two.is_present:
        return False
    return not one.is_present or field.form.parse(one.text) == field.form.parse(two.text)
