"""An endpoint as an answerer, against a small server of our own on this machine that speaks the protocol."""

import base64
import io
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from handlens.answerer import Answerer
from handlens.core.chat import ask, reply
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.engine.openai import Endpoint, OpenAIAnswerer, open_endpoint
from handlens.errors import ModelError, SettingError


class Server(ThreadingHTTPServer):
    """Answers every request from ``replies`` in turn (the last one again and again) and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, object]] = []
        self.asked: list[dict] = []
        self.models = ["small"]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        replies = self.server.replies
        self.send(*(replies.pop(0) if len(replies) > 1 else replies[0]))

    def send(self, code: int, body: object) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def said(text: str | None, **more: object) -> dict:
    return {"choices": [{"message": {"content": text}, **more}], "usage": {"completion_tokens": 3}}


def open_fast(server: Server) -> OpenAIAnswerer:
    return OpenAIAnswerer(Endpoint(server.address, pause_s=0.0), "small")


def picture() -> Picture:
    return Picture(Image.effect_noise((40, 30), 60).convert("RGB"), "noise")


def test_the_picture_arrives_whole_and_the_answer_comes_back(server):
    server.replies = [(200, said("23.50"))]
    model = open_endpoint(server.address)
    assert isinstance(model, Answerer)
    assert model.info.name == "small"
    shown = picture()
    tokens = list(model.answer(ask("How much?"), model.see([shown]), Sampling(max_tokens=7)))
    assert "".join(token.text for token in tokens) == "23.50"
    assert len(tokens) == 3
    assert math.isnan(tokens[0].logprob)
    (body,) = server.asked
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("small", 7, 0.0)
    image, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "How much?"}
    data = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).tobytes() == shown.image.tobytes()


def test_tokens_and_probabilities_where_they_are_told(server):
    pieces = [
        {"token": "re", "logprob": -0.5, "top_logprobs": []},
        {"token": "d", "logprob": -0.25, "top_logprobs": []},
    ]
    server.replies = [(200, said("red", logprobs={"content": pieces}))]
    model = open_fast(server)
    tokens = list(model.answer(ask("?", 0), model.see([]), Sampling()))
    assert [(token.text, token.logprob) for token in tokens] == [("re", -0.5), ("d", -0.25)]


def test_score_tells_first_tokens_and_says_when_it_cannot(server):
    top = [{"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -2.0}]
    server.replies = [
        (200, said("yes", logprobs={"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": top}]}))
    ]
    model = open_fast(server)
    assert model.score(ask("?", 0), model.see([]), ["no", "yes"]) == [-2.0, -0.1]
    with pytest.raises(SettingError, match="tells no probability of 'perhaps'"):
        model.score(ask("?", 0), model.see([]), ["perhaps"])


def test_beam_search_is_refused(server):
    model = open_fast(server)
    with pytest.raises(SettingError, match="no beam search"):
        list(model.answer(ask("?", 0), model.see([]), Sampling(num_beams=3)))


def test_a_busy_server_is_asked_again_and_a_refusal_is_told(server):
    server.replies = [(503, b"busy"), (429, b"slow down"), (200, said("ok"))]
    model = open_fast(server)
    assert "".join(t.text for t in model.answer(ask("?", 0), model.see([]), Sampling())) == "ok"
    server.replies = [(401, b'{"error": "no key"}')]
    with pytest.raises(ModelError, match=r"answered 401:.*no key"):
        list(model.answer(ask("?", 0), model.see([]), Sampling()))


def test_a_server_that_knows_no_probabilities_is_asked_without(server):
    server.replies = [(400, b"unknown field logprobs"), (200, said("one")), (200, said("two"))]
    model = open_fast(server)
    for text in ("one", "two"):
        assert "".join(t.text for t in model.answer(ask("?", 0), model.see([]), Sampling())) == text
    assert ["logprobs" in body for body in server.asked] == [True, False, False]


@pytest.mark.parametrize("body", [{}, {"choices": []}, said(None), said("")])
def test_an_empty_reply_is_an_empty_answer(server, body):
    server.replies = [(200, body)]
    model = open_fast(server)
    assert "".join(t.text for t in model.answer(ask("?", 0), model.see([]), Sampling())) == ""


def test_what_is_no_endpoint_is_told(server):
    server.replies = [(200, b"<html>hello")]
    model = open_fast(server)
    with pytest.raises(ModelError, match="answered no JSON"):
        list(model.answer(ask("?", 0), model.see([]), Sampling()))
    server.models = ["a", "b"]
    with pytest.raises(SettingError, match="serves several models"):
        open_endpoint(server.address)
    assert open_endpoint(server.address + "#b").info.name == "b"
    nowhere = Endpoint("http://127.0.0.1:9/v1", pause_s=0.0)
    with pytest.raises(ModelError, match="is the server running"):
        nowhere.models()


def test_a_conversation_and_its_sampling(server):
    server.replies = [(200, said("b"))]
    model = open_fast(server)
    chat = reply(ask("One?", 0), "a", "Two?")
    list(model.answer(chat, model.see([]), Sampling(temperature=0.5, top_p=0.9, seed=4, repetition_penalty=1.2)))
    (body,) = server.asked
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == "a"
    assert (body["top_p"], body["seed"], body["repetition_penalty"]) == (0.9, 4, 1.2)
    assert model.say("Grade:", 4, 0.0) == "b"
