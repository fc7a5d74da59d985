"""One door, two workers of our own: both answer, one may die, and the answers are those of a single server."""

import concurrent.futures
import http.client
import http.server
import json
import threading
import urllib.parse

import pytest
from tests.serve.conftest import asking, start, stop

import handlens
from handlens.errors import SettingError
from handlens.serve.settings import ServerSettings

pytest.importorskip("starlette", reason="the server needs the extra 'serve'")


def request(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    connection.request(method, path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    status, text = answer.status, answer.read()
    connection.close()
    return status, text


def test_two_workers_behind_one_door(nano):
    from handlens.serve.app import build_app
    from handlens.serve.gateway import build_gateway

    workers = [
        start(build_app(model, ServerSettings(max_waiting=1))) for model in (nano, handlens.load("nano", keep=True))
    ]
    door = start(build_gateway([worker.url for worker in workers], ServerSettings()))
    body = json.dumps(asking(max_tokens=3)).encode()
    streamed = json.dumps(asking(max_tokens=3, stream=True)).encode()
    try:
        assert json.loads(request(door.url, "GET", "/v1/models")[1])["data"][0]["id"] == "nano"
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda sent: request(door.url, "POST", "/v1/chat/completions", sent), [body] * 4))
        assert {status for status, _ in answers} <= {200, 429}
        said = {json.loads(text)["choices"][0]["message"]["content"] for status, text in answers if status == 200}
        assert len(said) == 1
        for worker in workers:  # both were asked
            assert b'path="/v1/chat/completions",status="200"' in request(worker.url, "GET", "/metrics")[1]
        assert request(door.url, "POST", "/v1/chat/completions", streamed)[1].endswith(b"data: [DONE]\n\n")
        status, text = request(door.url, "POST", "/v1/chat/completions", b'{"model": "other"}')
        assert (status, b"messages" in text) == (400, True)
        assert b"Ask a picture" in request(door.url, "GET", "/")[1]
        stop(workers.pop())
        assert request(door.url, "POST", "/v1/chat/completions", body)[0] == 200  # the other one answers
        wells = [worker["well"] for worker in json.loads(request(door.url, "GET", "/health")[1])["workers"]]
        assert sorted(wells) == [False, True]
        stop(workers.pop())
        status, text = request(door.url, "POST", "/v1/chat/completions", body)
        assert status == 503
        assert "none of 2 workers can be reached" in json.loads(text)["error"]["message"]
    finally:
        for running in (door, *workers):
            stop(running)


class Stranger(http.server.BaseHTTPRequestHandler):
    """A worker of another maker: OpenAI's routes, plain words when it is full, nothing of ours."""

    def do_GET(self):
        self.tell(200, "application/json", b'{"object": "list", "data": [{"id": "theirs"}]}')

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if self.server.is_full:
            self.tell(503, "text/plain", b"Request dropped due to backpressure")
        else:
            self.tell(200, "application/json", b'{"choices": [{"message": {"content": "seen"}}]}')

    def tell(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def test_workers_of_other_makers_one_full_and_then_both():
    from handlens.serve.gateway import build_gateway

    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) for _ in range(2)]
    for server in servers:
        server.is_full = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].is_full = True
    urls = [f"http://127.0.0.1:{server.server_port}/v1" for server in servers]
    door = start(build_gateway(urls, ServerSettings()))
    try:
        for _ in range(3):  # the full one is asked first, and the other one answers
            status, text = request(door.url, "POST", "/v1/chat/completions", b"{}")
            assert (status, json.loads(text)["choices"][0]["message"]["content"]) == (200, "seen")
        assert json.loads(request(door.url, "GET", "/v1/models")[1])["data"][0]["id"] == "theirs"
        servers[1].is_full = True
        assert request(door.url, "POST", "/v1/chat/completions", b"{}") == (503, b"Request dropped due to backpressure")
        assert json.loads(request(door.url, "GET", "/health")[1])["status"] == "ok"
    finally:
        stop(door)
        for server in servers:
            server.shutdown()
            server.server_close()


def test_addresses_that_are_none():
    from handlens.serve.gateway import build_gateway

    with pytest.raises(SettingError, match="worker 'localhost:8001' is no address"):
        build_gateway(["localhost:8001"], ServerSettings())
