"""An answerer whose answers and probabilities are known, to test what stands around answerers."""

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from handlens.answerer import ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import plan_slices
from handlens.engine.openai import Endpoint, OpenAIAnswerer

INFO = ModelInfo(name="known", family="nano", engine="none", num_queries=4, side_px=112, max_slices=4)


def question_in(chat: Chat) -> str:
    """The words of the last turn."""
    return "".join(part for part in chat[-1].content if isinstance(part, str)).strip()


class Known:
    """Says what a function says, and believes in a question as another function tells."""

    def __init__(
        self,
        say: Callable[[str, Sampling], str] = lambda question, sampling: "",
        believe: Callable[[str], float] = lambda question: 0.5,
    ) -> None:
        self.info = INFO
        self.say, self.believe = say, believe
        self.looks = self.scores = 0

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        self.looks += 1
        plans = [plan_slices(*picture.image.size) for picture in images]
        names = [picture.name for picture in images]
        return Seen(
            pictures=tuple(
                SeenPicture(name=name, plan=plan, visual_tokens=None) for name, plan in zip(names, plans, strict=True)
            )
        )

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        for number, char in enumerate(self.say(question_in(chat), sampling)):
            yield Token(char, number, -0.1)

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        self.scores += 1
        share = self.believe(question_in(chat))
        told = {"yes": share, "no": 1 - share}
        return [math.log(told[text]) if told.get(text) else -math.inf for text in continuations]


@pytest.fixture
def photo() -> Picture:
    return Picture(Image.new("RGB", (60, 40), "white"), "photo")


@pytest.fixture
def known() -> type[Known]:
    """The class; pytest imports no neighbours of a test."""
    return Known


class Moody(ThreadingHTTPServer):
    """An endpoint that answers, is slow, breaks off, or says no JSON; ``reply`` may know more moods."""

    def __init__(self, reply: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), MoodyHandler)
        self.mode, self.reply = "good", reply
        self.leave = threading.Event()


class MoodyHandler(BaseHTTPRequestHandler):
    server: Moody

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mode = self.server.mode
        if mode == "slow":
            self.server.leave.wait(5)
        if mode == "dead":
            self.connection.close()
            return
        data = b"<html>" if mode == "html" else json.dumps(self.server.reply(mode, asked)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def moody(
    reply: Callable[[str, dict[str, Any]], dict[str, Any]], opener: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Moody]:
    """Serve, and let ``opener`` open it whatever name it is given; nothing is tried twice."""
    server = Moody(reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("handlens.engine.openai.TRIES", 1)
    address = f"http://127.0.0.1:{server.server_port}/v1"
    model = OpenAIAnswerer(Endpoint(address, timeout_s=0.2, pause_s=0.0), "model")
    monkeypatch.setattr(opener, lambda name: model)
    yield server
    server.leave.set()
    server.shutdown()
    server.server_close()
    thread.join()
