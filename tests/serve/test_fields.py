"""Fields and claims over HTTP: the same answers as in Python, and requests that cannot be answered."""

import json

import pytest
from tests.serve.conftest import EXAMPLES, asking, data_uri, request, start, stop

from handlens.serve.settings import ServerSettings

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")

SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}, "currency": {"enum": ["EUR", "USD"]}}}


def body(**more):
    return {"model": "nano", "image_url": {"url": data_uri()}, "schema": SCHEMA, "max_slices": 1, **more}


def post(url: str, path: str, value) -> tuple[int, dict]:
    status, _, answer = request(url, "POST", path, json.dumps(value).encode(), **{"content-type": "application/json"})
    return status, json.loads(answer)


def test_fields_are_those_of_the_python_api(served, nano):
    status, answer = post(served, "/v1/fields", body())
    assert status == 200
    here = nano.fields(EXAMPLES / "shapes.png", SCHEMA, max_slices=1)
    assert answer["value"] == here.value
    assert list(answer["fields"]) == ["total", "currency"]
    for name, one in answer["fields"].items():
        assert one["answer"] == here[name].text
        assert one["confidence"] == pytest.approx(here[name].confidence, abs=1e-3)
        assert (one["value"] is None) == (name in answer["missing"])
    assert answer["value"]["currency"] in ("EUR", "USD", None)
    assert answer["image"]["width"] == 460


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({"schema": {}}, 400, "names no fields"),
        ({"schema": {"properties": {"a": {"type": "string", "pattern": "x"}}}}, 400, "field 'a'"),
        ({"schema": 5}, 400, "schema"),
        ({"image_url": {"url": "file:///etc/passwd"}}, 400, "begins with 'file:///etc/passwd'"),
        ({"look_again_below": 2}, 400, "look_again_below"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"model": "other"}, 404, "unknown model 'other'"),
        ({"shema": {}}, 400, "did you mean 'schema'?"),
    ],
)
def test_requests_that_cannot_be_answered(served, more, status, message):
    found, answer = post(served, "/v1/fields", body(**more))
    assert found == status
    assert message in answer["error"]["message"]


def test_fields_that_take_too_long_are_ended_between_two_questions(nano):
    from handlens.serve.app import build_app

    running = start(build_app(nano, ServerSettings(max_seconds=1)))
    try:
        many = {"properties": {f"field {number}": {"type": "string"} for number in range(200)}}
        status, answer = post(running.url, "/v1/fields", body(schema=many, look_again_below=1.0))
        assert status == 400
        assert "were over before all fields were read; ask for fewer fields" in answer["error"]["message"]
    finally:
        stop(running)


@pytest.mark.parametrize("stream", [False, True])
def test_claims_come_with_the_answer_where_they_are_asked_for(served, stream):
    asked = asking("What shape is yellow?", check=True, stream=stream)
    status, _, answer = request(
        served, "POST", "/v1/chat/completions", json.dumps(asked).encode(), **{"content-type": "application/json"}
    )
    assert status == 200
    pieces = [line[6:] for line in answer.decode().splitlines() if line.startswith("data: {")] if stream else [answer]
    facts = json.loads(pieces[-1])["handlens"]
    assert {"status", "rejected", "seconds"} <= set(facts["check"])
    assert facts["claims"], "an answer to a question is at least one claim"
    for claim in facts["claims"]:
        assert claim["verdict"] in ("supported", "rejected", "unread")
        assert claim["probability"] is None or 0 <= claim["probability"] <= 1
    status, plain = post(served, "/v1/chat/completions", asking("What shape is yellow?"))
    assert "claims" not in plain["handlens"]
