"""A schema as people and pydantic write it becomes fields with questions; what cannot be used is named in one line."""

import pydantic
import pytest

from handlens.errors import SettingError
from handlens.fields.schema import fields_of, read_schema


class Buyer(pydantic.BaseModel):
    first_name: str
    vat: str | None = pydantic.Field(None, title="VAT number")


class Invoice(pydantic.BaseModel):
    total: float = pydantic.Field(ge=0)
    paid: bool = pydantic.Field(description="Is it\n paid?")
    buyer: Buyer
    notes: list[str] = pydantic.Field(description="lines at the foot")


def test_a_model_of_pydantic_becomes_fields():
    fields = fields_of(Invoice.model_json_schema())
    assert [(field.name, field.question, field.form.kind) for field in fields] == [
        ("total", "What is the total?", "number"),
        ("paid", "Is it paid?", "truth"),
        ("buyer.first_name", "What is the first name?", "text"),
        ("buyer.vat", "What is the VAT number?", "text"),
        ("notes", "What is the notes?", "json"),
    ]
    assert fields[-1].hint == "lines at the foot"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({}, "names no fields; give them under 'properties'"),
        ({"type": "object", "properties": {}}, "names no fields"),
        ({"properties": ["total"]}, "'properties' of # is list"),
        ({"properties": {"a": 5}}, "field 'a' is 5"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "points to #/\\$defs/b, which is not in the schema"),
        ({"properties": {"a": {"$ref": "http://x/y"}}}, "only parts of the schema itself"),
        ({"$defs": {"b": {"$ref": "#/$defs/b"}}, "properties": {"a": {"$ref": "#/$defs/b"}}}, "points to itself"),
        ({"$defs": {"b": {"properties": {"c": {"$ref": "#/$defs/b"}}}}, "properties": {"a": {"$ref": "#/$defs/b"}}},
         "more than 8 objects deep"),
        ({"properties": {"a": {"properties": {"b": {"type": "string", "pattern": "x"}}}}}, "field 'a.b'.*'pattern'"),
        ({"properties": {f"f{number}": {"type": "string"} for number in range(257)}}, "257 fields; up to 256"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_used(schema, message):
    with pytest.raises(SettingError, match=message) as raised:
        fields_of(schema)
    assert "\n" not in str(raised.value)


def test_schemas_are_read_from_files_and_from_the_command_line(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{"properties": {"total": {"type": "number"}}}')
    assert read_schema(str(file)) == read_schema(' {"properties": {"total": {"type": "number"}}}')
    for content, message in ((b"[1]", "holds list"), (b"{", "is not JSON"), (b"\xff\xfe", "is not text")):
        file.write_bytes(content)
        with pytest.raises(SettingError, match=message):
            read_schema(str(file))
    with pytest.raises(SettingError, match=r"cannot read the schema .*nowhere.json: No such file"):
        read_schema(str(tmp_path / "nowhere.json"))
