"""What was read: one answer per field, and all of them as plain values.

Boundary: plain data; how it is found is ``read.py``.
"""

from dataclasses import dataclass
from typing import Any

from handlens.align.judge import Sliced
from handlens.answerer import Seen
from handlens.fields.forms import NOT_PRESENT
from handlens.fields.places import Box, Place
from handlens.fields.reading import Reading
from handlens.fields.schema import Field


@dataclass(frozen=True, kw_only=True)
class FieldAnswer:
    """One field, read."""

    field: Field
    text: str
    """As it is printed, or ``not present``."""
    value: Any
    """Of the schema's type; None where the field is not present."""
    confidence: float
    """How likely the answer is right; the model's own probability where there is no calibration."""
    not_present: float
    """How likely the picture does not show the field."""
    probability: float
    """What the model itself gave the answer, before calibration."""
    place: Place | None
    """Where a value was read; None for ``not present``, and where it was not looked for."""
    box: Box | None
    """In px of the picture; finer than the slice after a second look."""
    case: str
    """Which line of the calibration was used."""
    readings: tuple[Reading, ...]
    """What each look said, in order."""

    @property
    def looks(self) -> int:
        """How often the picture was asked."""
        return len(self.readings)

    @property
    def is_present(self) -> bool:
        """True where the answer is a value."""
        return self.text != NOT_PRESENT

    @property
    def slice(self) -> Sliced | None:
        """The slice that a value was read from."""
        return self.place.slice if self.place else None


@dataclass(frozen=True, kw_only=True)
class Fields:
    """All fields of one picture, in the order of the schema."""

    answers: tuple[FieldAnswer, ...]
    is_calibrated: bool
    seen: Seen
    seconds: float

    def __getitem__(self, name: str) -> FieldAnswer:
        """Return a field by its name, for example ``buyer.name``."""
        found = next((one for one in self.answers if one.field.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def value(self) -> dict[str, Any]:
        """The values, nested as in the schema; None where a field is not present."""
        whole: dict[str, Any] = {}
        for one in self.answers:
            *outer, last = one.field.path
            inner = whole
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = one.value
        return whole


def fields_to_json(fields: Fields) -> dict[str, Any]:
    """Return everything as plain values; ``value`` and ``box`` are null where a field is not present."""
    return {
        "fields": {
            one.field.name: {
                "value": one.value,
                "answer": one.text,
                "present": one.is_present,
                "confidence": round(one.confidence, 4),
                "not_present": round(one.not_present, 4),
                "slice": _slice_to_json(one),
                "box": list(one.box) if one.box else None,
                "looks": one.looks,
                "question": one.field.question,
            }
            for one in fields.answers
        },
        "value": fields.value,
        "missing": [one.field.name for one in fields.answers if not one.is_present],
        "calibrated": fields.is_calibrated,
        "seconds": round(fields.seconds, 4),
    }


def _slice_to_json(one: FieldAnswer) -> dict[str, Any] | None:
    if one.place is None:
        return None
    where = one.place.slice
    return {"slice": where.slice, "row": where.row, "column": where.column, "share": round(one.place.share, 4)}
