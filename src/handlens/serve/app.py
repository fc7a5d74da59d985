"""The routes of the server: OpenAI's chat completions, models and files, health, metrics, and the page.

Boundary: FastAPI, imported when a server starts; answering is ``worker.py``, the format is ``wire.py``.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlens import __version__
from handlens.answerer import Answerer
from handlens.core.images import open_picture
from handlens.engine.memory import resident_bytes
from handlens.errors import ImageError, NeedsExtra
from handlens.serve.fields import FieldsAsk, fields_model, to_fields_ask
from handlens.serve.guard import PAGE_PARTS, App, Guard
from handlens.serve.metrics import Metrics
from handlens.serve.offline import OfflineFolder, add_offline_routes
from handlens.serve.pictures import Upload, Uploads
from handlens.serve.settings import Refusal, ServerSettings
from handlens.serve.wire import Ask, chunk, completion, explain, request_model, to_ask, usage_chunk
from handlens.serve.worker import Ended, Event, Job, Said, Started, Worker

if TYPE_CHECKING:
    from fastapi import FastAPI

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {"/": "index.html"} | {f"/{name}": name for name in PAGE_PARTS}
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def build_app(
    answerer: Answerer, settings: ServerSettings | None = None, *, offline: OfflineFolder | None = None
) -> App:
    """Return the server as an ASGI application; the answerer should hold its halves (``keep=True``).

    ``offline`` is the model as a page that runs in the browser, under ``/offline/``.

    Raises:
        NeedsExtra: the web framework is not installed.
    """
    try:
        import python_multipart  # noqa: F401  fastapi asks for it when the first form is added
        from fastapi import FastAPI
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"the server ({cause.name} is missing)", "serve") from None
    settings = settings or ServerSettings()
    metrics, uploads = Metrics(), Uploads(settings)
    worker = Worker(answerer, settings, metrics, uploads)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.close)
        if offline:
            offline.close()

    app = FastAPI(
        title="Handlens", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Ask pictures. OpenAI's chat completions, with what the model saw in the field `handlens`.",
    )  # fmt: skip
    _refusals(app)
    _chat_route(app, worker, settings)
    _fields_route(app, worker, settings)
    _model_routes(app, answerer)
    _file_routes(app, uploads, settings)
    _status_routes(app, worker, metrics, answerer, can_go_offline(offline) and not settings.api_key)
    _page_routes(app)
    if offline:
        add_offline_routes(app, offline)
    return Guard(app, settings, metrics)


def _refusals(app: "FastAPI") -> None:
    """Give every error OpenAI's form."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def answer(refusal: Refusal, headers: Any = None) -> JSONResponse:
        more = {"retry-after": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
        return JSONResponse(refusal.to_json(), refusal.status, headers={**(headers or {}), **more})

    @app.exception_handler(Refusal)
    async def refused(_: Any, refusal: Refusal) -> JSONResponse:
        return answer(refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Any, error: RequestValidationError) -> JSONResponse:
        return answer(explain(error.errors(), path=request.url.path))

    @app.exception_handler(HTTPException)
    async def other(_: Any, error: HTTPException) -> JSONResponse:
        return answer(Refusal(error.status_code, str(error.detail)), error.headers)


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for the published schema."""
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": "an error in OpenAI's form", "content": content} for status in statuses}


def _chat_route(app: "FastAPI", worker: Worker, settings: ServerSettings) -> None:
    from fastapi import Request
    from fastapi.responses import JSONResponse, StreamingResponse

    model = request_model()
    described: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "the answer; with `stream` a sequence of server-sent events",
            "content": {
                "application/json": {"schema": {"type": "object", "required": ["id", "choices", "usage", "handlens"]}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        **_documented(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    }

    @app.post("/v1/chat/completions", responses=described, response_model=None)
    async def chat_completions(request: Request, body: model) -> JSONResponse | StreamingResponse:  # type: ignore[valid-type]
        ask = to_ask(body, most_tokens=settings.max_tokens, most_pictures=settings.max_pictures)
        _check_model(ask.model, worker.answerer.info.name)
        job, events = _submit(worker, ask)
        try:
            first = await _unless_gone(request, events)
            if ask.stream:
                return StreamingResponse(
                    _stream(ask, first, events, worker, job),
                    media_type="text/event-stream",
                    headers={"cache-control": "no-store", "x-accel-buffering": "no"},
                )
            return JSONResponse(await _whole(request, ask, events))
        except BaseException:
            worker.cancel(job)
            raise


def _submit(worker: Worker, ask: Ask | FieldsAsk) -> "tuple[Job, asyncio.Queue[Event]]":
    """Put a request into the queue; its events come through the loop of the caller."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def tell(event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens any more
            loop.call_soon_threadsafe(events.put_nowait, event)

    job = Job(ask=ask, tell=tell)
    worker.submit(job)
    return job, events


def _fields_route(app: "FastAPI", worker: Worker, settings: ServerSettings) -> None:
    from fastapi import Request
    from fastapi.responses import JSONResponse

    model = fields_model()
    described: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "every field with its value, confidence, slice and box",
            "content": {"application/json": {"schema": {"type": "object", "required": ["fields", "value", "missing"]}}},
        },
        **_documented(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    }

    @app.post("/v1/fields", responses=described, response_model=None)
    async def fields(request: Request, body: model) -> JSONResponse:  # type: ignore[valid-type]
        ask = to_fields_ask(body, most_tokens=settings.max_tokens)
        _check_model(ask.model, worker.answerer.info.name)
        job, events = _submit(worker, ask)
        try:
            event = await _unless_gone(request, events)
        except BaseException:
            worker.cancel(job)
            raise
        assert isinstance(event, Ended), "fields come as one event"
        return JSONResponse(event.handlens)


def _check_model(asked: str, served: str) -> None:
    if asked != served:
        raise Refusal(
            404, f"unknown model {asked!r}; this server has {served!r}", param="model", code="model_not_found"
        )


async def _unless_gone(request: Any, events: "asyncio.Queue[Event]") -> Event:
    """Return the next event; a client that hangs up, or a refusal, ends the request."""
    getter = asyncio.ensure_future(events.get())
    try:
        while not (await asyncio.wait({getter}, timeout=0.25))[0]:
            if await request.is_disconnected():
                raise Refusal(499, "the client hung up")
    finally:
        if not getter.done():
            getter.cancel()
    event = getter.result()
    if isinstance(event, Refusal):
        raise event
    return event


async def _whole(request: Any, ask: Ask, events: "asyncio.Queue[Event]") -> dict[str, Any]:
    """Return the whole answer."""
    texts: list[str] = []
    logprobs: list[Any] = []
    while True:
        event = await _unless_gone(request, events)
        if isinstance(event, Said):
            texts.append(event.text)
            logprobs += [event.logprob] if event.logprob else []
        elif isinstance(event, Ended):
            known = logprobs if ask.logprobs else None
            return completion(ask, "".join(texts), event.why, known, event.usage, event.handlens)


async def _stream(
    ask: Ask, first: Event, events: "asyncio.Queue[Event]", worker: Worker, job: Job
) -> AsyncIterator[bytes]:
    """Yield server-sent events; when the client hangs up, the model is free."""
    event = first
    try:
        while True:
            if isinstance(event, Started):
                delta = {"role": "assistant", "content": ""}
                yield _sse(chunk(ask, delta, handlens=event.handlens))
            elif isinstance(event, Said):
                yield _sse(chunk(ask, {"content": event.text}, logprobs=[event.logprob] if event.logprob else None))
            elif isinstance(event, Ended):
                yield _sse(chunk(ask, {}, event.why, handlens={**event.handlens, "usage": event.usage}))
                if ask.include_usage:
                    yield _sse(usage_chunk(ask, event.usage))
                yield b"data: [DONE]\n\n"
                return
            else:
                yield _sse(event.to_json())
                return
            event = await events.get()
    finally:
        worker.cancel(job)


def _sse(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _model_routes(app: "FastAPI", answerer: Answerer) -> None:
    def described() -> dict[str, Any]:
        info = answerer.info
        return {
            "id": info.name,
            "object": "model",
            "created": 0,
            "owned_by": "handlens",
            "handlens": {"family": info.family, "engine": info.engine, "quantisation": info.quantisation,
                         "side_px": info.side_px, "max_slices": info.max_slices, "queries": info.num_queries,
                         "notice": info.notice},
        }  # fmt: skip

    @app.get("/v1/models", responses=_documented(401, 403))
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{model}", responses=_documented(401, 403, 404))
    async def model(model: str) -> dict[str, Any]:
        _check_model(model, answerer.info.name)
        return described()


def _file_routes(app: "FastAPI", uploads: Uploads, settings: ServerSettings) -> None:
    from typing import Annotated

    from fastapi import File, Form, UploadFile

    @app.post("/v1/files", responses=_documented(400, 401, 403, 413, 422))
    async def upload(file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()] = "vision") -> dict[str, Any]:
        data = await file.read()
        try:  # what is no picture is refused now and not when someone asks about it
            await asyncio.to_thread(open_picture, data, name="the file", max_pixels=settings.max_pixels)
        except ImageError as error:
            raise Refusal(400, str(error), param="file") from None
        kept = Upload(data=data, filename=(file.filename or "upload").encode("utf-8", "replace").decode())
        uploads.add(kept)
        return kept.to_json()

    @app.get("/v1/files", responses=_documented(401, 403))
    async def listed() -> dict[str, Any]:
        return {"object": "list", "data": [file.to_json() for file in uploads.all()], "has_more": False}

    @app.get("/v1/files/{file_id}", responses=_documented(401, 403, 404))
    async def file(file_id: str) -> dict[str, Any]:
        return uploads.get(file_id).to_json()

    @app.delete("/v1/files/{file_id}", responses=_documented(401, 403, 404))
    async def remove(file_id: str) -> dict[str, Any]:
        uploads.remove(file_id)
        return {"id": file_id, "object": "file", "deleted": True}


def can_go_offline(offline: OfflineFolder | None) -> bool:
    """True where the page for the browser can be made: it needs the torch weights beside the bundle."""
    files = ("manifest.json", "model.safetensors")
    return offline is not None and all((offline.model / name).is_file() for name in files)


def _status_routes(
    app: "FastAPI", worker: Worker, metrics: Metrics, answerer: Answerer, has_offline_page: bool
) -> None:
    from fastapi.responses import PlainTextResponse

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": answerer.info.name,
            "waiting": worker.num_waiting,
            "notice": answerer.info.notice,
            "offline": has_offline_page,
            "version": __version__,
        }

    @app.get("/metrics", response_class=PlainTextResponse, responses=_documented(401, 403))
    async def numbers() -> PlainTextResponse:
        text = metrics.render(waiting=worker.num_waiting, memory_bytes=resident_bytes())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _page_routes(app: "FastAPI") -> None:
    from fastapi.responses import FileResponse, Response

    def serve(name: str) -> Any:
        async def page() -> FileResponse:
            return FileResponse(PAGE / name, headers=PAGE_HEADERS)

        return page

    for path, name in PAGE_FILES.items():
        app.add_api_route(path, serve(name), include_in_schema=False, methods=["GET", "HEAD"])

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)
