"""Any OpenAI-compatible endpoint as an ``Answerer``: vLLM, llama.cpp's server, ``handlens serve``, a paid service.

Boundary: the standard library's HTTP only. The endpoint sees the pictures itself, so there are no visual tokens; the
protocol has no beam search, and log-probabilities of single tokens only.
"""

import base64
import io
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from handlens.answerer import ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat, Shown, check
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import plan_slices
from handlens.errors import ModelError, SettingError

KEYS = ("HANDLENS_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; it is never written down."""
TIMEOUT_S = 600.0
TRIES = 4
RETRIED = (408, 429, 500, 502, 503, 504)
TOP_LOGPROBS = 20


@dataclass(frozen=True, kw_only=True)
class SeenByEndpoint(Seen):
    """Pictures as they are sent: PNG files as data addresses."""

    addresses: tuple[str, ...] = ()


class Endpoint:
    """The HTTP side: one base address, for example ``http://127.0.0.1:8000/v1``."""

    def __init__(
        self, base: str, *, key: str | None = None, timeout_s: float = TIMEOUT_S, pause_s: float = 1.0
    ) -> None:
        self.base = base.rstrip("/")
        self._key = key or next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
        self._timeout_s, self._pause_s = timeout_s, pause_s

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON answer of one request; a busy or broken server is asked again.

        Raises:
            ModelError: the endpoint cannot be reached, refuses, or answers something else than JSON.
        """
        for attempt in range(TRIES):
            try:
                with urllib.request.urlopen(self._request(path, body), timeout=self._timeout_s) as reply:
                    return _as_object(reply.read(), self.base)
            except urllib.error.HTTPError as error:
                said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
                if error.code not in RETRIED or attempt == TRIES - 1:
                    raise ModelError(f"{self.base}{path} answered {error.code}: {said or error.reason}") from None
            except (OSError, ValueError) as error:  # URLError, timeout, connection reset, an address that is none
                if attempt == TRIES - 1 or isinstance(error, ValueError):
                    reason = getattr(error, "reason", error)
                    raise ModelError(f"cannot reach {self.base}{path} ({reason}); is the server running?") from None
            time.sleep(self._pause_s * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def models(self) -> list[str]:
        """Return the names of the models that the endpoint serves."""
        return [str(model.get("id")) for model in self.call("/models").get("data", ())]

    def _request(self, path: str, body: dict[str, Any] | None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self.base + path, data=data, headers=headers)


class OpenAIAnswerer:
    """An ``Answerer`` behind ``/chat/completions``; may be asked from several threads at once."""

    has_beams = False

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint, self.model = endpoint, model
        self._tells_logprobs = True
        self.info = ModelInfo(
            name=model, family="remote", engine=f"openai {endpoint.base}", num_queries=0, side_px=448, max_slices=9
        )

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode pictures as PNG; slicing is the endpoint's own business and ``max_slices`` has no effect on it."""
        pictures, addresses = [], []
        for picture in images:
            file = io.BytesIO()
            picture.image.save(file, "PNG")
            addresses.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
            plan = plan_slices(*picture.image.size)
            pictures.append(SeenPicture(name=picture.name, plan=plan, visual_tokens=None))
        return SeenByEndpoint(pictures=tuple(pictures), addresses=tuple(addresses))

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        """Yield the answer; the pieces are the endpoint's tokens where it tells them, else the whole text at once.

        Raises:
            SettingError: beam search is asked for.
            ModelError: the endpoint fails.
        """
        if sampling.num_beams > 1:
            raise SettingError(f"num_beams is {sampling.num_beams}; the OpenAI protocol has no beam search; use 1")
        reply = self._complete(self._body(chat, seen, sampling))
        text, pieces = _text_of(reply), _tokens_of(reply)
        if pieces and "".join(piece["token"] for piece in pieces) == text:
            yield from (Token(piece["token"], -1, float(piece["logprob"])) for piece in pieces)
        elif text:
            count = int((reply.get("usage") or {}).get("completion_tokens") or 1)
            yield Token(text, -1, math.nan)
            yield from (Token("", -1, math.nan) for _ in range(count - 1))

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability of each continuation, which must be one of the likeliest first tokens.

        Raises:
            SettingError: a continuation is not among them; the protocol tells no other.
        """
        body = self._body(chat, seen, Sampling(max_tokens=1)) | {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        pieces = _tokens_of(self.endpoint.call("/chat/completions", body))
        told = {top["token"]: float(top["logprob"]) for piece in pieces[:1] for top in piece.get("top_logprobs", ())}
        unknown = [text for text in continuations if text not in told]
        if unknown:
            raise SettingError(
                f"{self.endpoint.base} tells no probability of {unknown[0]!r}: the OpenAI protocol gives the "
                f"{TOP_LOGPROBS} likeliest single tokens only; score with a bundle or a torch model"
            )
        return [told[text] for text in continuations]

    def say(self, prompt: str, max_tokens: int, temperature: float) -> str:
        """Return the reply to a text without pictures: what a grader is asked."""
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens,
                "temperature": temperature}  # fmt: skip
        return _text_of(self.endpoint.call("/chat/completions", body))

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask with probabilities, and without them where the endpoint refuses the field."""
        if self._tells_logprobs:
            try:
                return self.endpoint.call("/chat/completions", body | {"logprobs": True})
            except ModelError as error:
                if "logprob" not in str(error):
                    raise
                self._tells_logprobs = False
        return self.endpoint.call("/chat/completions", body)

    def _body(self, chat: Chat, seen: Seen, sampling: Sampling) -> dict[str, Any]:
        addresses = getattr(seen, "addresses", ())
        check(chat, len(addresses))

        def part(content: str | Shown) -> dict[str, Any]:
            if isinstance(content, Shown):
                return {"type": "image_url", "image_url": {"url": addresses[content.index]}}
            return {"type": "text", "text": content}

        body: dict[str, Any] = {
            "model": self.model, "max_tokens": sampling.max_tokens, "temperature": sampling.temperature,
            "messages": [
                {"role": turn.role, "content": [part(content) for content in turn.content] if turn.role == "user"
                 else "".join(str(content) for content in turn.content)}
                for turn in chat
            ],
        }  # fmt: skip
        if sampling.temperature:
            body |= {"top_p": sampling.top_p, "seed": sampling.seed}
        if sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        return body


def open_endpoint(address: str) -> OpenAIAnswerer:
    """Return the model behind ``http://host:port/v1``, or behind ``http://host:port/v1#model`` where there are several.

    Raises:
        ModelError: the endpoint cannot be reached or serves no model.
        SettingError: it serves several models and none is named.
    """
    base, _, model = address.partition("#")
    endpoint = Endpoint(base)
    if not model:
        models = endpoint.models()
        if not models:
            raise ModelError(f"{base} names no model; name one: {base}#MODEL")
        if len(models) > 1:
            raise SettingError(
                f"{base} serves several models; name one: {base}#MODEL; there are {', '.join(models[:20])}"
            )
        model = models[0]
    return OpenAIAnswerer(endpoint, model)


def _as_object(data: bytes, base: str) -> dict[str, Any]:
    try:
        reply = json.loads(data)
    except ValueError:
        raise ModelError(f"{base} answered no JSON ({data[:80]!r}); is this an OpenAI-compatible endpoint?") from None
    if not isinstance(reply, dict):
        raise ModelError(f"{base} answered {type(reply).__name__}, needed is an object")
    return reply


def _text_of(reply: dict[str, Any]) -> str:
    choices = reply.get("choices") or [{}]
    content = (choices[0].get("message") or {}).get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""


def _tokens_of(reply: dict[str, Any]) -> list[dict[str, Any]]:
    choices = reply.get("choices") or [{}]
    return list((choices[0].get("logprobs") or {}).get("content") or ())
