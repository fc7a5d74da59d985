"""schemathesis invents requests from the published schema; whatever it invents, the server answers in order."""

import os

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs the extra 'dev'")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_examples", [5, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_requests_invented_from_the_schema(served, num_examples):
    import hypothesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_schema_conformance,
        status_code_conformance,
    )

    # Left out: positive_data_acceptance. A schema cannot say which base64 is a picture or which id is an upload.
    checks = [
        not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
        negative_data_rejection,
    ]  # fmt: skip
    schema = schemathesis.openapi.from_url(f"{served}/openapi.json")
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        modes = list(schemathesis.GenerationMode)

        @hypothesis.settings(
            max_examples=num_examples, deadline=None, database=None, derandomize="CI" in os.environ,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(
            case=hypothesis.strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))
        )
        def once(case):
            nonlocal tried
            tried += 1
            if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
                case.body["max_tokens"] = min(case.body["max_tokens"], 2)  # an answer of 1,000 tokens shows no more
            case.call_and_validate(checks=checks)

        once()
    assert tried > 5
