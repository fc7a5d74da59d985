"""One door in front of several servers: the same API, spread over workers that each answer one request at a time.

Boundary: bytes in, bytes out, through httpx2; looks into no request. Any OpenAI-compatible server can be a worker:
our own, vLLM, or Ray Serve.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from handlens.engine.memory import resident_bytes
from handlens.errors import NeedsExtra, SettingError
from handlens.serve.guard import PAGE_PARTS, App, Guard
from handlens.serve.metrics import Metrics
from handlens.serve.settings import Refusal, ServerSettings

if TYPE_CHECKING:
    from starlette.requests import Request

PASSED_ON = (
    "content-type", "accept", "authorization", "retry-after", "cache-control", "content-security-policy",
    "x-content-type-options", "referrer-policy",
)  # fmt: skip
RESTING_S = 2.0
"""A worker that could not be reached is tried again after so long."""


@dataclass(eq=False)
class Behind:
    """One worker."""

    url: str
    busy: int = 0
    """Requests that it answers now."""
    rests_until: float = field(default=0.0)


class Workers:
    """Chooses who answers: the least busy worker that can be reached."""

    def __init__(self, urls: Sequence[str]) -> None:
        for url in urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise SettingError(f"worker {url!r} is no address; write for example http://127.0.0.1:8001")
        self.all = [Behind(url.rstrip("/").removesuffix("/v1")) for url in urls]

    def in_order(self, now: float) -> list[Behind]:
        """Return the workers in the order in which to try them; those that rest come last."""
        return sorted(self.all, key=lambda worker: (worker.rests_until > now, worker.busy))


def build_gateway(urls: Sequence[str], settings: ServerSettings) -> App:
    """Return an application that passes everything under ``/v1`` on to the workers.

    Raises:
        NeedsExtra: the web framework is not installed.
        SettingError: a worker's address is none.
    """
    try:
        import httpx2
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
        from starlette.routing import Route
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"the server ({cause.name} is missing)", "serve") from None
    workers, metrics = Workers(urls), Metrics()
    wait = httpx2.Timeout(settings.max_seconds + 10.0, connect=3.0)
    client = httpx2.AsyncClient(timeout=wait, trust_env=False, limits=httpx2.Limits(max_connections=None))

    async def pass_on(request: "Request") -> "Response":
        body = await request.body()
        now = asyncio.get_running_loop().time()
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        query = f"?{request.url.query}" if request.url.query else ""
        busiest: Response | None = None
        for worker in workers.in_order(now):
            asked = client.build_request(
                request.method, f"{worker.url}{request.url.path}{query}", headers=headers, content=body
            )
            worker.busy += 1
            try:
                answer = await client.send(asked, stream=True)
            except httpx2.TransportError:
                worker.busy -= 1
                worker.rests_until = now + RESTING_S
                continue
            except BaseException:
                worker.busy -= 1
                raise
            kept = {name: value for name, value in answer.headers.items() if name in PASSED_ON}
            if answer.status_code in (429, 503):  # another worker may have room
                worker.busy -= 1
                text = await answer.aread()
                await answer.aclose()
                busiest = Response(text, answer.status_code, headers=kept)  # not always JSON: other makers, proxies
                continue
            return StreamingResponse(_until_done(answer, worker), answer.status_code, headers=kept)
        if busiest is not None:
            return busiest
        refusal = Refusal(503, f"none of {len(workers.all)} workers can be reached; start them, or ask again later")
        return JSONResponse(refusal.to_json(), 503, headers={"retry-after": "2"})

    async def health(_: "Request") -> "Response":
        states = await asyncio.gather(*(_is_well(client, worker) for worker in workers.all))
        rows = [{"url": worker.url, "well": well} for worker, well in zip(workers.all, states, strict=True)]
        return JSONResponse({"status": "ok" if any(states) else "down", "workers": rows}, 200 if any(states) else 503)

    async def numbers(_: "Request") -> "Response":
        busy = sum(worker.busy for worker in workers.all)
        return PlainTextResponse(metrics.render(waiting=busy, memory_bytes=resident_bytes()))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    methods = ["GET", "POST", "DELETE"]
    routes = [
        Route("/v1/{path:path}", pass_on, methods=methods),
        Route("/health", health),
        Route("/metrics", numbers),
        *(Route(path, pass_on) for path in ("/", *(f"/{name}" for name in PAGE_PARTS), "/openapi.json")),
    ]
    return Guard(Starlette(routes=routes, lifespan=lifespan), settings, metrics)


async def _until_done(answer: Any, worker: Behind) -> AsyncIterator[bytes]:
    """Yield what a worker says; when the client hangs up, the worker learns it."""
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        worker.busy -= 1
        await answer.aclose()


async def _is_well(client: Any, worker: Behind) -> bool:
    """Return whether a worker answers; vLLM and ours both have ``/health``."""
    try:
        return (await client.get(f"{worker.url}/health", timeout=3.0)).status_code == 200
    except Exception:  # every way of not answering
        return False
