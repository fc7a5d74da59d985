"""Turn a JSON schema into a grammar whose every text is JSON that the schema accepts.

Boundary: a schema as plain values in, a ``Grammar`` out. The grammar is narrower than the schema where that does
no harm: properties come in the order of the schema, others are never added, and white space is one space after
``:`` and ``,`` or nothing.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from handlens.core.grammar import (
    BEYOND_ASCII,
    NOTHING,
    Bytes,
    Choice,
    Grammar,
    Piece,
    Repeat,
    Rule,
    Seq,
    byte_range,
    text,
)
from handlens.errors import SettingError, did_you_mean

MOST_DIGITS = 15
"""Digits before the point; integers of 15 digits are exact as double precision numbers."""
MOST_CHOICES = 4096
NOTES = {
    "$schema", "$id", "$defs", "definitions", "title", "description", "default", "examples", "deprecated", "readOnly",
    "writeOnly", "$comment", "format", "strict",
}  # fmt: skip
"""Keywords that forbid nothing; ``format`` is a note too (JSON Schema 2020-12, section 7.2.1)."""
KNOWN = NOTES | {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems",
    "maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf",
    "oneOf", "allOf", "$ref",
}  # fmt: skip

DIGIT = byte_range(0x30, 0x39)
SPACE = Repeat(text(" "), 0, 1)
CHARACTER = Choice(
    (
        Bytes(frozenset(range(0x20, 0x7F)) - {0x22, 0x5C}),
        BEYOND_ASCII,
        Seq((text("\\"), Bytes(frozenset(b'"\\/bfnrt')))),
    )
)
WHOLE = Choice((text("0"), Seq((byte_range(0x31, 0x39), Repeat(DIGIT, 0, MOST_DIGITS - 1)))))
INTEGER = Choice((WHOLE, Seq((text("-"), byte_range(0x31, 0x39), Repeat(DIGIT, 0, MOST_DIGITS - 1)))))
FRACTION = Repeat(Seq((text("."), Repeat(DIGIT, 1, MOST_DIGITS))), 0, 1)
NUMBER = Seq((Repeat(text("-"), 0, 1), WHOLE, FRACTION))
STRING = Seq((text('"'), Repeat(CHARACTER), text('"')))
ANY_RULES: dict[str, Piece] = {
    "any": Choice((STRING, NUMBER, text("true"), text("false"), text("null"), Rule("object"), Rule("array"))),
    "pair": Seq((STRING, text(":"), SPACE, Rule("any"))),
}


def _listed(item: Piece, least: int, most: int | None) -> Piece:
    """Return items with commas between them."""
    if most == 0:
        return NOTHING
    more = Repeat(Seq((text(","), SPACE, item)), max(0, least - 1), None if most is None else most - 1)
    return Seq((item, more)) if least else Choice((NOTHING, Seq((item, more))))


ANY_RULES["object"] = Seq((text("{"), _listed(Rule("pair"), 0, None), text("}")))
ANY_RULES["array"] = Seq((text("["), _listed(Rule("any"), 0, None), text("]")))


def json_grammar(schema: Mapping[str, Any] | bool | None = None) -> Grammar:
    """Return the grammar of a schema; None is any JSON object.

    Raises:
        SettingError: the schema has a keyword that no grammar is made for, or nothing fits it.
    """
    if schema is None:
        return Grammar(Rule("object"), ANY_RULES)
    builder = _Builder(schema)
    root = builder.piece(schema, "#")
    grammar = Grammar(root, builder.rules)
    if grammar.shortest(grammar.start()) >= 1 << 30:
        raise SettingError("the JSON schema contains itself without end; give a way out, such as null or an empty list")
    return grammar


class _Builder:
    """Follows a schema from the outside to the inside; ``place`` says where for messages."""

    def __init__(self, whole: Mapping[str, Any] | bool) -> None:
        self.whole = whole
        self.rules: dict[str, Piece] = dict(ANY_RULES)

    def piece(self, schema: Any, place: str) -> Piece:
        if schema is True:
            return Rule("any")
        if not isinstance(schema, Mapping):
            raise SettingError(f"the JSON schema at {place} is {json.dumps(schema)}; an object or true is needed")
        for key in schema:
            if key not in KNOWN:
                raise SettingError(
                    f"the JSON schema at {place} uses '{key}', which answers cannot be held to"
                    f"{did_you_mean(key, KNOWN - NOTES)}"
                )
        if "$ref" in schema:
            return self._reference(schema["$ref"], place)
        if "const" in schema:
            return text(_dump(schema["const"]))
        if "enum" in schema:
            return self._choice(schema["enum"], place + "/enum", lambda value, _: text(_dump(value)))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._choice(schema[key], f"{place}/{key}", self.piece)
        if "allOf" in schema:
            return self._all_of(schema, place)
        return self._typed(schema, place)

    def _typed(self, schema: Mapping[str, Any], place: str) -> Piece:
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return self._choice(kinds, place, lambda kind, _: self._typed({**schema, "type": kind}, place))
        makers = {
            "object": self._object, "array": self._array, "string": self._string, "integer": self._integer,
            "number": self._number,
        }  # fmt: skip
        if kinds is None:
            guess = next((kind for kind, key in (("object", "properties"), ("array", "items")) if key in schema), None)
            return makers[guess](schema, place) if guess else Rule("any")
        if kinds == "boolean":
            return Choice((text("true"), text("false")))
        if kinds == "null":
            return text("null")
        if kinds not in makers:
            known = [*makers, "boolean", "null"]
            raise SettingError(f"the JSON schema at {place} has type {kinds!r}{did_you_mean(str(kinds), known)}")
        return makers[kinds](schema, place)

    def _object(self, schema: Mapping[str, Any], place: str) -> Piece:
        required = list(schema.get("required", []))
        named = dict(schema.get("properties", {})) | {
            name: True for name in required if name not in schema.get("properties", {})
        }
        others = schema.get("additionalProperties", True)
        if not named:
            if others is False:
                return text("{}")
            value = self.piece(others, place + "/additionalProperties")
            return Seq((text("{"), _listed(Seq((STRING, text(":"), SPACE, value)), 0, None), text("}")))
        members: list[tuple[Piece, bool]] = [
            (Seq((text(f"{_dump(name)}:"), SPACE, self.piece(inner, f"{place}/properties/{name}"))), name in required)
            for name, inner in named.items()
        ]
        return Seq((text("{"), _members(members), text("}")))

    def _array(self, schema: Mapping[str, Any], place: str) -> Piece:
        least, most = _bounds(schema, "minItems", "maxItems", place)
        first = [self.piece(item, f"{place}/prefixItems") for item in schema.get("prefixItems", [])]
        item = self.piece(schema.get("items", True), place + "/items") if schema.get("items") is not False else None
        if not first:
            return Seq((text("["), _listed(item, least, most) if item else NOTHING, text("]")))
        comma = Seq((text(","), SPACE))
        head = [piece for number, entry in enumerate(first) for piece in ((comma, entry) if number else (entry,))]
        left = None if most is None else max(0, most - len(first))
        more = Repeat(Seq((comma, item)), max(0, least - len(first)), left) if item else NOTHING
        return Seq((text("["), *head, more, text("]")))

    def _string(self, schema: Mapping[str, Any], place: str) -> Piece:
        least, most = _bounds(schema, "minLength", "maxLength", place)
        return Seq((text('"'), Repeat(CHARACTER, least, most), text('"')))

    def _integer(self, schema: Mapping[str, Any], place: str) -> Piece:
        lowest, highest = -(10**MOST_DIGITS) + 1, 10**MOST_DIGITS - 1
        low = max(lowest, _whole(schema.get("minimum", lowest)), _whole(schema.get("exclusiveMinimum", lowest - 1)) + 1)
        high = min(
            highest, -_whole(-schema.get("maximum", highest)), -_whole(-schema.get("exclusiveMaximum", highest + 1)) - 1
        )
        if low > high:
            raise SettingError(f"the JSON schema at {place} has no integer from {low} to {high}; swap the bounds")
        return Choice(tuple(_integers(low, high)))

    def _number(self, schema: Mapping[str, Any], place: str) -> Piece:
        bounds = [key for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if key in schema]
        if not bounds:
            return NUMBER
        if bounds == ["minimum"] and schema["minimum"] == 0:
            return Seq((WHOLE, FRACTION))
        raise SettingError(
            f"the JSON schema at {place} bounds a number ({', '.join(bounds)}); answers can be held to "
            "'minimum': 0, or to bounds of an integer"
        )

    def _reference(self, name: Any, place: str) -> Piece:
        if not isinstance(name, str) or not name.startswith("#"):
            raise SettingError(f"the JSON schema at {place} points to {name!r}; only its own parts (#/...) can be used")
        if name not in self.rules:
            target: Any = self.whole
            for key in name.removeprefix("#").strip("/").split("/") if name != "#" else ():
                key = key.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, Mapping) or key not in target:
                    raise SettingError(f"the JSON schema at {place} points to {name}, which is not in it")
                target = target[key]
            self.rules[name] = NOTHING  # known from here on, so that a part can contain itself
            self.rules[name] = self.piece(target, name)
        return Rule(name)

    def _all_of(self, schema: Mapping[str, Any], place: str) -> Piece:
        parts = schema["allOf"]
        if not isinstance(parts, list) or len(parts) != 1:
            raise SettingError(f"the JSON schema at {place} joins several parts with allOf; write them as one")
        return self.piece(parts[0], place + "/allOf")

    def _choice(self, values: Any, place: str, make: Any) -> Piece:
        if not isinstance(values, list) or not 1 <= len(values) <= MOST_CHOICES:
            raise SettingError(f"the JSON schema at {place} needs a list of 1 to {MOST_CHOICES:,} choices")
        return Choice(tuple(make(value, f"{place}/{number}") for number, value in enumerate(values)))


def _members(members: list[tuple[Piece, bool]]) -> Piece:
    """Return properties in order, commas between those that are there; the optional ones may be left out."""
    comma = Seq((text(","), SPACE))
    as_first: Piece = NOTHING
    as_next: Piece = NOTHING
    for member, is_required in reversed(members):
        first, later = Seq((member, as_next)), Seq((comma, member, as_next))
        as_first = first if is_required else Choice((first, as_first))
        as_next = later if is_required else Choice((later, as_next))
    return as_first


def _bounds(schema: Mapping[str, Any], low: str, high: str, place: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    if not isinstance(least, int) or not (most is None or isinstance(most, int)) or not 0 <= least <= (most or least):
        raise SettingError(f"the JSON schema at {place} has {low} {least} and {high} {most}; 0 <= {low} <= {high}")
    return least, most


def _integers(low: int, high: int) -> Iterator[Piece]:
    """Yield the integers of a range, as pieces by sign and number of digits."""
    if low < 0:
        yield from (Seq((text("-"), piece)) for piece in _integers(max(1, -high), -low))
        low = 0
    for digits in range(len(str(low)), len(str(max(high, 0))) + 1):
        first, last = max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1)
        if first <= last:
            yield from (Seq(tuple(row)) for row in _digits(str(first), str(last)))


def _digits(low: str, high: str) -> Iterator[list[Piece]]:
    """Yield rows of digit sets that together are the numbers from ``low`` to ``high``, of equal length.

    >>> [[sorted(map(chr, digit.values)) for digit in row] for row in _digits("19", "21")]
    [[['1'], ['9']], [['2'], ['0', '1']]]
    """
    first, last = ord(low[0]), ord(high[0])
    if len(low) == 1:
        yield [byte_range(first, last)]
    elif first == last:
        yield from ([byte_range(first, first), *row] for row in _digits(low[1:], high[1:]))
    elif low[1:] != "0" * (len(low) - 1):
        yield from ([byte_range(first, first), *row] for row in _digits(low[1:], "9" * (len(low) - 1)))
        yield from _digits(f"{int(low[0]) + 1}{'0' * (len(low) - 1)}", high)
    elif high[1:] != "9" * (len(high) - 1):
        yield from _digits(low, f"{int(high[0]) - 1}{'9' * (len(high) - 1)}")
        yield from ([byte_range(last, last), *row] for row in _digits("0" * (len(high) - 1), high[1:]))
    else:
        yield [byte_range(first, last), *[DIGIT] * (len(low) - 1)]


def _whole(value: Any) -> int:
    """Return the smallest integer that is not below a bound."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"the JSON schema has the bound {value!r}; a number is needed")
    return -int(-value // 1)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
