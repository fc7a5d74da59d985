"""From a JSON schema to the list of its fields, each with the question that is asked.

Boundary: plain values in and out; what an answer may look like is ``forms.py``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.errors import SettingError
from handlens.fields.forms import Form, form_of

MOST_FIELDS = 256
MOST_LEVELS = 8
_EXAMPLE = 'for example {"properties": {"total": {"type": "number"}, "date": {"type": "string"}}}'


@dataclass(frozen=True, kw_only=True)
class Field:
    """One value that is looked for."""

    path: tuple[str, ...]
    """Keys from the outside to the inside."""
    question: str
    hint: str
    """``description`` of the schema where it is no question; models other than nano are told."""
    form: Form

    @property
    def name(self) -> str:
        """The path with points, for example ``buyer.name``."""
        return ".".join(self.path)


def read_schema(source: str) -> dict[str, Any]:
    """Return a schema from a file, or from JSON that begins with ``{``.

    Raises:
        SettingError: it cannot be read, or is no JSON object.
    """
    where = "the schema"
    if not source.lstrip().startswith("{"):
        where = source
        try:
            source = Path(source).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise SettingError(f"{where} is not text; a schema is a JSON file, {_EXAMPLE}") from None
        except OSError as cause:
            raise SettingError(f"cannot read the schema {where}: {cause.strerror or cause}; {_EXAMPLE}") from None
    try:
        schema = json.loads(source)
    except (json.JSONDecodeError, RecursionError) as cause:
        raise SettingError(f"{where} is not JSON ({cause}); {_EXAMPLE}") from None
    if not isinstance(schema, dict):
        raise SettingError(f"{where} holds {type(schema).__name__}; a schema is an object, {_EXAMPLE}")
    return schema


def fields_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the fields of a schema in its order; objects inside it are entered, lists are one field.

    Raises:
        SettingError: the schema names no field, or has a part that answers cannot be held to.
    """
    if not isinstance(schema, Mapping):
        raise SettingError(f"the schema is {type(schema).__name__}; an object is needed, {_EXAMPLE}")
    found = tuple(_walk(schema, schema, ()))
    if not found or found[0].path == ():
        raise SettingError(f"the schema names no fields; give them under 'properties', {_EXAMPLE}")
    if len(found) > MOST_FIELDS:
        raise SettingError(f"the schema has {len(found)} fields; up to {MOST_FIELDS} can be asked for at once")
    return found


def _walk(schema: Any, whole: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Field]:
    name = ".".join(path) or "#"
    if len(path) > MOST_LEVELS:
        raise SettingError(
            f"the schema is more than {MOST_LEVELS} objects deep at {name}; name the fields nearer the top"
        )
    plain = _resolve(schema, whole, name)
    inner = plain.get("properties")
    if inner is not None and not isinstance(inner, Mapping):
        raise SettingError(
            f"'properties' of {name} is {type(inner).__name__}; an object of fields is needed, {_EXAMPLE}"
        )
    if inner:
        for key, value in inner.items():
            yield from _walk(value, whole, (*path, key))
        return
    if not path:
        return
    notes = {key: plain[key] for key in ("title", "description") if isinstance(plain.get(key), str)}
    try:
        defs = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
        form = form_of({**plain, **defs} if plain.get("type") in ("array", "object", None) else plain)
    except SettingError as error:
        raise SettingError(f"field '{name}': {error}") from None
    question, hint = _ask_for(path[-1], notes, is_truth=form.kind == "truth")
    yield Field(path=path, question=question, hint=hint, form=form)


def _resolve(schema: Any, whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a schema without ``$ref``, without a choice of one, and without null: ``not present`` stands for it."""
    for _ in range(MOST_LEVELS):
        if not isinstance(schema, Mapping):
            raise SettingError(f"field '{name}' is {json.dumps(schema)}; an object with a type is needed, {_EXAMPLE}")
        notes = {key: schema[key] for key in ("title", "description") if key in schema}
        options = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)), None)
        kinds = schema.get("type")
        if "$ref" in schema:
            schema = {**_part(schema["$ref"], whole, name), **notes}
        elif options is not None and len(left := [one for one in options if one != {"type": "null"}]) == 1:
            if not isinstance(left[0], Mapping):
                raise SettingError(f"field '{name}' has the choice {json.dumps(left[0])}; an object is needed")
            schema = {**left[0], **notes}
        elif isinstance(kinds, list) and len(kept := [kind for kind in kinds if kind != "null"]) == 1:
            schema = {**schema, "type": kept[0]}
        else:
            return schema
    raise SettingError(f"field '{name}' points to itself; write out what it is")


def _part(reference: Any, whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    target: Any = whole
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise SettingError(
            f"field '{name}' points to {reference!r}; only parts of the schema itself (#/...) can be used"
        )
    for key in reference[2:].split("/"):
        key = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or key not in target:
            raise SettingError(f"field '{name}' points to {reference}, which is not in the schema")
        target = target[key]
    if not isinstance(target, Mapping):
        raise SettingError(f"field '{name}' points to {reference}, which is no object")
    return target


def _ask_for(key: str, notes: Mapping[str, str], *, is_truth: bool) -> tuple[str, str]:
    """Return question and hint: ``description`` if it is a question, else one made from ``title`` or the key.

    >>> _ask_for("tableNumber", {}, is_truth=False)
    ('What is the table number?', '')
    >>> _ask_for("milk", {"description": "Is Milk ticked?"}, is_truth=True)
    ('Is Milk ticked?', '')
    """
    description = " ".join(notes.get("description", "").split())
    if description.endswith("?"):
        return description, ""
    words = " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-\s]+", " ", key).split()).lower()
    title = " ".join(notes.get("title", "").split())
    # Generators of schemas make titles from keys ("Table Number"); only other words say more.
    name = title if title and title.lower() != words else words
    return (f"Is {name} ticked?" if is_truth else f"What is the {name}?"), description
