"""A real server on a real port with the shipped nano, in this process."""

import base64
import contextlib
import http.client
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import handlens
from handlens.serve.settings import ServerSettings

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass
class Running:
    url: str
    server: Any
    thread: threading.Thread


def start(app: Any) -> Running:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    return Running(f"http://127.0.0.1:{port}", server, thread)


def stop(running: Running) -> None:
    running.server.should_exit = True
    running.thread.join(20)
    assert not running.thread.is_alive()


@pytest.fixture(scope="session")
def nano() -> Any:
    return handlens.load("nano", keep=True)


@pytest.fixture(scope="session")
def served(nano: Any) -> Iterator[str]:
    """Address of a server with the default limits, but few pixels and a short queue."""
    pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")
    pytest.importorskip("uvicorn", reason="the server needs the extra 'serve'")
    from handlens.serve.app import build_app

    running = start(build_app(nano, ServerSettings(max_body_bytes=2**20, max_pixels=2_000_000, max_tokens=256)))
    yield running.url
    stop(running)


def data_uri(name: str = "shapes.png") -> str:
    return "data:image/png;base64," + base64.b64encode((EXAMPLES / name).read_bytes()).decode()


def asking(question: str = "How many circles are there?", *urls: str, **more: Any) -> dict[str, Any]:
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in (urls or (data_uri(),))]
    content = [*shown, {"type": "text", "text": question}]
    return {"model": "nano", "messages": [{"role": "user", "content": content}], "max_tokens": 6, **more}


def request(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
    parts = urllib.parse.urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
