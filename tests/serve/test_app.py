"""The server as strangers use it: OpenAI's own client, hostile requests, many clients at once."""

import concurrent.futures
import http.client
import json
import threading
import time
import urllib.parse

import pytest
from tests.serve.conftest import EXAMPLES, asking, data_uri, request, start, stop

from handlens.serve.settings import ServerSettings

openai = pytest.importorskip("openai", reason="the tests talk through OpenAI's client (extra 'dev')")


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(url: str, value, **headers: str) -> tuple[int, dict]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = {"content-type": "application/json", **headers}
    status, _, answer = request(url, "POST", "/v1/chat/completions", body, **headers)
    return status, json.loads(answer)


# ---- OpenAI's client -------------------------------------------------------------------------------------------------


def test_an_answer_says_what_the_model_saw(client):
    answer = client.chat.completions.create(**asking(logprobs=True, top_logprobs=2))
    assert answer.model == "nano"
    (choice,) = answer.choices
    assert choice.finish_reason in ("stop", "length")
    assert 1 <= answer.usage.completion_tokens <= 6
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    for token in choice.logprobs.content:
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-6)  # greedy
        assert bytes(token.bytes).decode() == token.token
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    seen = answer.handlens["images"][0]
    # 460x380 px in slices of 224: ceil(3.48) = 4 wanted, 2x2 is nearest to 1.21 among 3, 4 and 5 cells.
    assert (seen["width"], seen["height"], seen["grid"]) == (460, 380, [2, 2])
    assert seen["visual_tokens"] == answer.handlens["visual_tokens"] == 5 * 64
    assert answer.usage.prompt_tokens > 5 * 64
    assert answer.handlens["tokens_per_second"] >= 0
    assert answer.handlens["memory_bytes"] > 10**7


def test_streamed_pieces_are_the_whole_answer(client):
    whole = client.chat.completions.create(**asking())
    with client.chat.completions.create(**asking(), stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].handlens["images"][0]["grid"] == [2, 2]  # known before the first word
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.handlens["encoded"] == 0 or chunks[-2].handlens["encoded"] == 0  # the picture stays in memory


def test_seeds_repeat(client):
    drawn = [
        client.chat.completions.create(**asking(temperature=1.5, seed=seed)).choices[0].message.content
        for seed in (1, 1, 2, 3, 4)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_json_schema_holds(client):
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 20}, "colour": {"type": "string"}},
        "required": ["count", "colour"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "shapes", "schema": schema, "strict": True}}
    for seed in range(2):
        answer = client.chat.completions.create(
            **asking(response_format=form, max_tokens=30, temperature=1.9, seed=seed)
        )
        value = json.loads(answer.choices[0].message.content)
        assert set(value) == {"count", "colour"}
        assert 0 <= value["count"] <= 20
        assert answer.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="the shortest answer to this schema has 23 bytes"):
        client.chat.completions.create(**asking(response_format=form, max_tokens=5))
    loose = client.chat.completions.create(**asking(response_format={"type": "json_object"}, max_tokens=12))
    assert isinstance(json.loads(loose.choices[0].message.content), dict)


def test_several_pictures_a_follow_up_and_uploads(client):
    file = client.files.create(file=EXAMPLES / "shapes.png", purpose="vision")
    assert client.files.list().data[-1].id == file.id
    body = asking("What differs?", data_uri(), file.id)
    body["messages"] += [{"role": "assistant", "content": "Nothing."}, {"role": "user", "content": "Sure?"}]
    answer = client.chat.completions.create(**body)
    assert len(answer.handlens["images"]) == 2
    assert answer.usage.prompt_tokens_details.image_tokens == 2 * 5 * 64 if answer.usage.prompt_tokens_details else True
    low = asking()
    low["messages"][0]["content"][0]["image_url"]["detail"] = "low"
    assert client.chat.completions.create(**low).handlens["images"][0]["num_slices"] == 1
    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError, match="upload it again"):
        client.chat.completions.create(**asking("?", file.id))


def test_a_question_before_its_picture_is_answered_like_one_after_it(client):
    question, picture = {"type": "text", "text": "What is the total?"}, {
        "type": "image_url", "image_url": {"url": data_uri("receipt.png")},
    }  # fmt: skip
    before, after = (
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": parts}], max_tokens=8)
        for parts in ([question, picture], [picture, question])
    )
    assert before.choices[0].message.content == after.choices[0].message.content
    assert before.usage.prompt_tokens == after.usage.prompt_tokens


def test_stop_texts_end_an_answer_before_them(client):
    whole = client.chat.completions.create(**asking("Describe the picture.", max_tokens=24)).choices[0].message.content
    middle = whole[len(whole) // 2 :][:2]
    cut = client.chat.completions.create(**asking("Describe the picture.", max_tokens=24, stop=[middle]))
    assert cut.choices[0].message.content == whole[: whole.index(middle)]
    assert cut.choices[0].finish_reason == "stop"


def test_models(client):
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").handlens["side_px"] == 224
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError, match="unknown model 'gpt-5'; this server has 'nano'"):
        client.chat.completions.create(**{**asking(), "model": "gpt-5"})


# ---- requests that cannot be answered --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "image_url.url begins with 'file:///etc/passwd'"),
        ("/etc/passwd", "image_url.url begins with '/etc/passwd'"),
        ("http://127.0.0.1/x.png", "does not fetch pictures from the network"),
        ("http://169.254.169.254/latest", "does not fetch pictures from the network"),
        ("data:image/png;base64,AAAA", "is not a picture"),
        ("data:image/png;base64,%%%%", "not base64"),
        ("data:image/png,abc", "is not base64"),
        ("data:image/png;base64,", "is empty"),
        ("", "image_url.url begins with ''"),
    ],
)
def test_addresses_that_are_no_pictures(served, url, message):
    status, answer = post(served, asking("?", url))
    assert status == 400
    assert message in answer["error"]["message"]


def test_a_picture_with_too_many_pixels_or_a_cut_one(served):
    import base64
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("1", (2000, 1001)).save(stream, "PNG")
    whole = (EXAMPLES / "shapes.png").read_bytes()
    for data, message in ((stream.getvalue(), "the limit is 2,000,000"), (whole[: len(whole) // 2], "damaged PNG")):
        status, answer = post(served, asking("?", "data:image/png;base64," + base64.b64encode(data).decode()))
        assert status == 400
        assert message in answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "body"),
        (b"[" * 5000, ""),
        (b"null", "the body is no JSON object"),
        (asking(max_tokens=-1), "max_tokens: Input should be greater than or equal to 1"),
        (asking(max_tokens=0), "max_tokens"),
        (asking(temperature=-0.1), "temperature"),
        (asking(top_logprobs=-1), "top_logprobs"),
        (asking(max_slices=-4), "max_slices"),
        (asking(n=2), "n:"),
        (asking(maxtokens=5), "unknown key 'maxtokens'; did you mean 'max_tokens'?"),
        (asking(response_format={"type": "json_schema"}), "needs json_schema.schema"),
        (asking(tools=[{"type": "function"}]), "tools"),
        ({"model": "nano", "messages": []}, "messages"),
        ({"model": "nano", "messages": [{"role": "user", "content": " "}]}, "ask something"),
        ({"model": "nano", "messages": [{"role": "assistant", "content": "a"}]}, "it must be the user's"),
        (asking("<image>" * 5000), "positions"),
        (asking("\ud800"), "half of a character"),
    ],
)
def test_bodies_that_cannot_be_answered(served, body, message):
    status, answer = post(served, body)
    assert 400 <= status < 500
    assert message in answer["error"]["message"]


def test_bodies_that_are_too_large(served):
    status, answer = post(served, b" " * (2**20 + 1))
    assert status == 413
    assert "1,048,576 are allowed" in answer["error"]["message"]
    # No body: bytes that nobody reads reset the connection, at times before the answer is read.
    assert request(served, "POST", "/v1/chat/completions", b"", **{"content-length": "x"})[0] == 400


def test_other_paths_and_methods(served):
    assert request(served, "GET", "/nothing")[0] == 404
    assert request(served, "GET", "/v1/chat/completions")[0] == 405
    assert request(served, "GET", "/../../etc/passwd")[0] == 404
    assert json.loads(request(served, "GET", "/health")[2])["status"] == "ok"


def test_metrics_have_the_form_that_prometheus_reads(served):
    post(served, asking())
    text = request(served, "GET", "/metrics")[2].decode()
    for line in text.splitlines():
        assert line.startswith(("# HELP handlens_", "# TYPE handlens_", "handlens_"))
        if not line.startswith("#"):
            float(line.rpartition(" ")[2])
    assert 'handlens_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert 'handlens_first_word_seconds_bucket{le="+Inf"}' in text


# ---- who may ask -----------------------------------------------------------------------------------------------------


def test_a_page_of_the_web_cannot_use_its_own_name(served):
    assert request(served, "GET", "/v1/models", host="evil.example")[0] == 403
    assert request(served, "GET", "/v1/models", host="localhost:1")[0] == 200
    assert request(served, "GET", "/v1/models", host="[::1]:1")[0] == 200


def test_a_key_closes_everything_but_the_page_and_health(nano):
    from handlens.serve.app import build_app

    running = start(build_app(nano, ServerSettings(api_key="open sesame", allow_any_host=True)))
    try:
        for path, open_status in (("/v1/models", 200), ("/metrics", 200), ("/v1/files", 200)):
            assert request(running.url, "GET", path)[0] == 401
            assert request(running.url, "GET", path, authorization="Bearer wrong")[0] == 401
            assert request(running.url, "GET", path, authorization="Bearer open sesame")[0] == open_status
        assert request(running.url, "GET", "/health")[0] == request(running.url, "GET", "/")[0] == 200
    finally:
        stop(running)


# ---- many at once ----------------------------------------------------------------------------------------------------


def test_a_full_queue_says_429_and_when_to_come_back_and_hanging_up_frees_it(nano):
    from handlens.serve.app import build_app

    running = start(build_app(nano, ServerSettings(max_waiting=2)))
    try:
        long = json.dumps(asking("Describe the picture.", max_tokens=1000, temperature=2.0, stream=True)).encode()
        parts = urllib.parse.urlsplit(running.url)
        held = []
        for _ in range(3):  # one is answered, two wait
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
            connection.request("POST", "/v1/chat/completions", long, {"content-type": "application/json"})
            held.append(connection)
            time.sleep(0.2)
        statuses = [request(running.url, "POST", "/v1/chat/completions", long, **{"content-type": "application/json"})]
        if statuses[0][0] == 429:  # the first may be over already on a quick machine
            assert int(statuses[0][1]["retry-after"]) >= 1
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 20
        while json.loads(request(running.url, "GET", "/health")[2])["waiting"] and time.monotonic() < deadline:
            time.sleep(0.05)
        status, answer = post(running.url, asking())
        assert status == 200
        assert answer["handlens"]["seconds"]["waited"] < 10
    finally:
        stop(running)


def test_going_down_answers_who_is_waiting(nano):
    from handlens.serve.app import build_app

    running = start(build_app(nano, ServerSettings()))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(post, running.url, asking(max_tokens=4)) for _ in range(3)]
        time.sleep(0.5)
        stop(running)
        statuses = {answer.result()[0] for answer in answers}
    assert statuses <= {200, 503}


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_200_clients_for_five_minutes(nano):
    from handlens.engine.memory import resident_bytes
    from handlens.serve.app import build_app

    running = start(build_app(nano, ServerSettings()))
    over = time.monotonic() + 300
    counts: dict[int, int] = {}
    lock = threading.Lock()
    memory = []

    def ask_again_and_again(number: int) -> None:
        while time.monotonic() < over:
            status, headers, _ = request(
                running.url, "POST", "/v1/chat/completions",
                json.dumps(asking(f"What is at {number % 7}?", max_tokens=3, stream=number % 3 == 0)).encode(),
                **{"content-type": "application/json"},
            )  # fmt: skip
            with lock:
                counts[status] = counts.get(status, 0) + 1
            if status == 429:
                time.sleep(min(5, int(headers["retry-after"])))

    try:
        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            clients = [pool.submit(ask_again_and_again, number) for number in range(200)]
            while time.monotonic() < over:
                time.sleep(10)
                memory.append(resident_bytes())
            for client in clients:
                client.result()
    finally:
        stop(running)
    assert set(counts) <= {200, 429}
    assert counts[200] > 100
    # After the first third everything is warm; from then on the memory stays within a tenth.
    assert max(memory[len(memory) // 3 :]) < 1.1 * memory[len(memory) // 3]
