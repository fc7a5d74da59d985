"""The door of the server: who may come in, under which name, with how large a body. Every answer is counted.

Boundary: plain ASGI; runs before anything is parsed.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from handlens.serve.metrics import Metrics
from handlens.serve.settings import Refusal, ServerSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGE_PARTS = ("page.css", "page.js", "picture.js", "talk.js", "fields.js")
"""What the page consists of, beside itself."""
OPEN_PATHS = {"/", "/health", "/favicon.ico", *(f"/{name}" for name in PAGE_PARTS)}
"""What a browser or a load balancer reads without a key; none of it tells of a picture."""
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1", "testserver"}
KNOWN_PATHS = (
    "/v1/chat/completions", "/v1/fields", "/v1/models", "/v1/files", "/metrics", "/openapi.json", "/offline",
    *OPEN_PATHS,
)  # fmt: skip


class Guard:
    """Wraps an application."""

    def __init__(self, app: App, settings: ServerSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        size, status = 0, 0

        async def counted_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.settings.max_body_bytes:
                raise _TooLarge
            return message

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            self._check(scope["path"], headers)
            await self.app(scope, counted_receive, watched_send)
        except _TooLarge:
            await _drain(receive, self.settings.max_body_bytes)
            await refuse(watched_send, self._too_large(f"more than {self.settings.max_body_bytes:,}"))
        except Refusal as refusal:
            await _drain(receive, 4 * self.settings.max_body_bytes)
            await refuse(watched_send, refusal)
        finally:
            self.metrics.add("requests_total", path=_known(scope["path"]), status=str(status or 499))

    def _check(self, path: str, headers: dict[str, str]) -> None:
        """Raise ``Refusal`` where the door stays closed."""
        name = headers.get("host", "localhost")
        name = name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0]
        if not self.settings.allow_any_host and name.lower() not in LOCAL_NAMES:
            # A page on the web can point its own name at 127.0.0.1 and then read what it likes (DNS rebinding).
            raise Refusal(403, f"this server answers to localhost, not to {name!r}; start it with --host or --api-key")
        if self.settings.api_key and path not in OPEN_PATHS:
            kind, _, key = headers.get("authorization", "").partition(" ")
            good = hmac.compare_digest(key.strip().encode(), self.settings.api_key.encode())
            if kind.lower() != "bearer" or not good:
                raise Refusal(401, "a key is needed: Authorization: Bearer KEY", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise Refusal(400, f"content-length is {length[:20]!r}; a number is needed")
        if int(length) > self.settings.max_body_bytes:
            raise self._too_large(f"{int(length):,}")

    def _too_large(self, found: str) -> Refusal:
        most = self.settings.max_body_bytes
        return Refusal(413, f"the body has {found} bytes; {most:,} are allowed; send a smaller picture")


async def _drain(receive: Receive, most_bytes: int) -> None:
    """Read what a client still sends, so that it gets to reading the answer; within reason."""
    while most_bytes > 0:
        message = await receive()
        most_bytes -= len(message.get("body", b"")) or 1
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


class _TooLarge(BaseException):
    """Leaves the application at once; a framework that catches ``Exception`` does not hold it up."""


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal as JSON."""
    body = json.dumps(refusal.to_json(), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _known(path: str) -> str:
    """Return a path that may be a label; whatever else clients ask for is one label."""
    return next((known for known in KNOWN_PATHS if path == known or path.startswith(known + "/")), "other")
