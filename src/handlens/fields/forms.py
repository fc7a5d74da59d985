"""How the answer to one field may look: plain text as it is printed, held to the type, or ``not present``.

Boundary: the schema of one field in, a grammar and the way back from text to a value out; knows no model.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from handlens.core.grammar import BEYOND_ASCII, NOTHING, Bytes, Choice, Grammar, Piece, Repeat, Seq, text
from handlens.core.json_grammar import DIGIT, json_grammar
from handlens.errors import SettingError

NOT_PRESENT = "not present"
"""The answer that the picture does not show a field; nano learned these words."""
Kind = Literal["text", "number", "integer", "truth", "choice", "json"]
TRUE, FALSE = ("yes", "Yes", "true"), ("no", "No", "false")

_PRINTED = Choice((Bytes(frozenset(range(0x21, 0x7F))), BEYOND_ASCII))
_CHARACTER = Choice((Bytes(frozenset(range(0x20, 0x7F))), BEYOND_ASCII))
_SIGN = Choice(tuple(text(sign) for sign in "$€£¥"))
_SPACE = Repeat(text(" "), 0, 1)
_AMOUNT = Seq((Repeat(DIGIT, 1, 15), Repeat(Seq((Choice((text("."), text(","))), Repeat(DIGIT, 1, 6))), 0, 4)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """What one field may answer."""

    kind: Kind
    grammar: Grammar
    parse: Callable[[str], Any]
    """Turns a whole answer, ``not present`` excepted, into the value of the schema's type."""


def form_of(schema: Mapping[str, Any]) -> Form:
    """Return the form of a field; equal schemas share one, and what was computed for it.

    Raises:
        SettingError: the schema has a keyword that answers cannot be held to.
    """
    return _form(json.dumps(schema, sort_keys=True))


@functools.lru_cache(maxsize=256)
def _form(canonical: str) -> Form:
    schema = json.loads(canonical)
    as_json = json_grammar(schema)  # refuses what no grammar is made for, also where the plain form below is used
    kind = schema.get("type")
    if "const" in schema or "enum" in schema:
        return _choice([schema["const"]] if "const" in schema else schema["enum"])
    if kind == "string":
        return Form(kind="text", grammar=_with_absent(_text(schema)), parse=str)
    if kind == "number":
        return Form(kind="number", grammar=_with_absent(_number(schema)), parse=parse_number)
    if kind == "boolean":
        said = Choice(tuple(map(text, (*TRUE, *FALSE))))
        return Form(kind="truth", grammar=_with_absent(said), parse=lambda answer: answer in TRUE)
    whole: Kind = "integer" if kind == "integer" else "json"
    return Form(kind=whole, grammar=as_json.or_text(NOT_PRESENT), parse=json.loads)


def parse_number(answer: str) -> float:
    """Return a printed number; of two kinds of separators the last one is the decimal point.

    A comma with exactly three digits behind it separates thousands.

    >>> parse_number("$1,234.50"), parse_number("12,50 €"), parse_number("-3"), parse_number("1,200")
    (1234.5, 12.5, -3.0, 1200.0)
    """
    sign = -1.0 if "-" in answer else 1.0
    parts = re.findall(r"\d+|[.,]", answer)
    marks = [part for part in parts if part in ".,"]
    digits = [part for part in parts if part not in ".,"]
    if not marks or (len(marks) > 1 and len(set(marks)) == 1) or (marks == [","] and len(digits[-1]) == 3):
        return sign * float("".join(digits))
    return sign * float("".join(digits[:-1]) + "." + digits[-1])


def _with_absent(piece: Piece) -> Grammar:
    return Grammar(piece, {}).or_text(NOT_PRESENT)


def _text(schema: Mapping[str, Any]) -> Piece:
    least, most = max(1, schema.get("minLength", 1)), schema.get("maxLength")
    if most == 0:
        return NOTHING
    return Seq((_PRINTED, Repeat(_CHARACTER, least - 1, None if most is None else most - 1)))


def _number(schema: Mapping[str, Any]) -> Piece:
    minus = NOTHING if schema.get("minimum") == 0 else Repeat(text("-"), 0, 1)
    behind = Repeat(Seq((_SPACE, _SIGN)), 0, 1)
    return Seq((minus, Repeat(_SIGN, 0, 1), _AMOUNT, behind))


def _choice(values: Any) -> Form:
    plain = [value for value in values if value is not None]
    if not plain or any(isinstance(value, list | dict) for value in plain):
        raise SettingError(f"enum is {json.dumps(values)}; choices of a field are texts, numbers or truth values")
    known = {value if isinstance(value, str) else json.dumps(value): value for value in plain}
    if "" in known or NOT_PRESENT in known:
        raise SettingError(f"a choice is empty or '{NOT_PRESENT}'; that answer is always allowed, leave it out")
    return Form(kind="choice", grammar=_with_absent(Choice(tuple(map(text, known)))), parse=known.__getitem__)
