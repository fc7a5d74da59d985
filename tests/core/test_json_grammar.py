"""Whatever is drawn from a grammar is JSON that an independent validator accepts, whole within its budget."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import handlens
from handlens.core.grammar import END, Grammar, GrammarConstraint
from handlens.core.json_grammar import json_grammar
from handlens.core.sampling import Sampling, generate
from handlens.core.tokenizer import Tokenizer
from handlens.errors import SettingError

STOP = 3  # <|im_end|> of nano
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["name", "kids"],
        }
    },
    "$ref": "#/$defs/node",
}
RECEIPT = {
    "type": "object",
    "properties": {
        "shop": {"type": "string", "maxLength": 30},
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD", "£"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "count": {"type": "integer", "minimum": 1, "maximum": 99}},
                "required": ["name", "count"],
            },
            "maxItems": 3,
        },
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["shop", "total", "currency"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def nano() -> Tokenizer:
    return Tokenizer.from_file(handlens.PACKAGED["nano"] / "tokenizer.json")


def accepts(schema, value: str) -> bool:
    grammar = schema if isinstance(schema, Grammar) else json_grammar(schema)
    state = grammar.start()
    for byte in value.encode():
        state = grammar.step(state, byte)
    return END in state


def drawn(constraint: GrammarConstraint, tokenizer: Tokenizer, seed: int, max_tokens: int) -> str:
    """Let random logits talk: the worst model there is."""
    rng = np.random.default_rng(seed)

    def logits(*_) -> np.ndarray:
        return rng.normal(0, 3, (1, tokenizer.vocab_size)).astype(np.float32)

    sampling = Sampling(max_tokens=max_tokens, temperature=1.0, seed=seed, constraint=constraint)
    ids = [token for token, _ in generate(logits()[0], logits, [STOP], sampling, forbidden=range(3))]
    return tokenizer.decode(ids)


@pytest.mark.parametrize(
    "schema", [RECEIPT, TREE, None, {"type": "array", "minItems": 2}, {"type": ["string", "null"]}]
)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 40))])
def test_any_model_gives_valid_json_whole_within_its_budget(nano, schema, seed):
    jsonschema = pytest.importorskip("jsonschema", reason="the oracle comes with the extra 'dev'")

    constraint = GrammarConstraint(json_grammar(schema), nano)
    for max_tokens in (constraint.shortest, 60):
        value = json.loads(drawn(constraint, nano, seed, max_tokens))
        jsonschema.validate(value, schema or {"type": "object"})


def test_a_loop_is_led_to_a_whole_answer(nano):
    constraint = GrammarConstraint(json_grammar({"type": "object", "properties": {"a": {"type": "string"}}}), nano)
    logits = np.zeros((1, nano.vocab_size), dtype=np.float32)
    logits[0, nano.id_of('"')] = 1
    logits[0, nano.id_of("x")] = 2
    ids = [
        t for t, _ in generate(logits[0], lambda *_: logits, [STOP], Sampling(max_tokens=900, constraint=constraint))
    ]
    value = json.loads(nano.decode(ids))
    assert set(value["a"]) == {"x"}
    assert 96 <= len(value["a"]) <= 100  # MIN_TOKENS of the loop guard, and what it takes to see them


@settings(max_examples=30)
@given(low=st.integers(-2000, 2000), width=st.integers(0, 3000), offset=st.integers(-30, 30))
def test_integer_bounds_are_exact(low, width, offset):
    high = low + width
    grammar = json_grammar({"type": "integer", "minimum": low, "maximum": high})
    for value in {low, high, low + offset, high + offset}:
        assert accepts(grammar, str(value)) == (low <= value <= high)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(10**14), 10**14)
    | st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé", min_size=1), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
@settings(max_examples=12)
def test_every_json_value_is_accepted_as_any_and_as_its_own_constant(value):
    written = json.dumps(value, ensure_ascii=False)
    assert accepts(True, written)
    assert accepts({"const": value}, written)
    assert accepts({"enum": ["other", value]}, written)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"äöü"', r'"\"\\"'], ['"a"', '"abcd"', '"a\n"']),
        ({"type": "number"}, ["0", "-0.5", "12.25"], ["01", ".5", "1.", "--1", "NaN"]),
        ({"type": "number", "minimum": 0}, ["0.0", "7"], ["-1"]),
        ({"type": "integer", "exclusiveMinimum": 0}, ["1", "10"], ["0", "-3", "1.5"]),
        (
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
            ["[true]", "[true, false]"],
            ["[]", "[1]", "[true,true,true]"],
        ),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}, ["[1,2]"], ["[1]", "[1,2,3]"]),
        (
            {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}},
            ["{}", '{"a":1}', '{"b": 2}', '{"a":1, "b":2}'],
            ['{"a":1,}', '{"b":2,"a":1}', '{,"b":2}'],
        ),
        ({"type": "object", "additionalProperties": {"type": "null"}}, ["{}", '{"x": null}'], ['{"x": 1}']),
        ({"type": "object", "properties": {}, "additionalProperties": False}, ["{}"], ['{"a":1}']),
        ({"required": ["z"], "properties": {"a": {"const": 1}}}, ['{"a":1,"z":[]}', '{"z":5}'], ['{"a":1}']),
    ],
)  # fmt: skip
def test_texts_worked_by_hand(schema, good, bad):
    assert [value for value in good if not accepts(schema, value)] == []
    assert [value for value in bad if accepts(schema, value)] == []


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "pattern": "a+"}, "uses 'pattern', which answers cannot be held to"),
        ({"type": "strin"}, "has type 'strin'; did you mean 'string'?"),
        ({"type": "object", "properties": {"a": 5}}, "at #/properties/a is 5"),
        ({"$ref": "http://x"}, "points to 'http://x'"),
        ({"$ref": "#/$defs/none"}, "which is not in it"),
        ({"enum": []}, "needs a list of 1 to 4,096 choices"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "has minLength 3 and maxLength 2"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no integer from 3 to 2"),
        ({"type": "number", "maximum": 2}, "bounds a number (maximum)"),
        ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "contains itself without end"),
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_used(schema, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        json_grammar(schema)


def test_beams_and_a_form_exclude_each_other(nano):
    with pytest.raises(SettingError, match="an answer with a set form needs 1"):
        Sampling(num_beams=2, constraint=GrammarConstraint(json_grammar(), nano))


def test_bytes_of_tokens_are_what_the_tokenizer_decodes(nano):
    for token_id in range(nano.vocab_size):
        assert nano.bytes_of(token_id).decode("utf-8", "replace") == nano.decode([token_id])
