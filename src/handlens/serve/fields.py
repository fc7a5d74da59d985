"""The route ``/v1/fields``: one picture and a JSON schema in, every field with confidence and place out.

Boundary: pydantic, imported when a server starts; reading is ``handlens.fields``, turns are ``worker.py``.
"""

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handlens.serve.settings import Refusal

if TYPE_CHECKING:
    from handlens.serve.worker import Event, Job, Worker

DEFAULT_TOKENS = 64
"""Longest value of one field."""


@dataclass(frozen=True, kw_only=True)
class FieldsAsk:
    """A checked request."""

    model: str
    addresses: tuple[str, ...]
    """Data URI, upload or URL of the one picture."""
    schema: Mapping[str, Any]
    max_slices: int | None
    max_tokens: int
    find: bool
    look_again_below: float


@functools.cache
def fields_model() -> Any:
    """Return the pydantic model of a request; its JSON schema is what the server publishes."""
    from pydantic import BaseModel, ConfigDict, Field

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class Picture(Strict):
        url: str = Field(description="A data URI, the id of an upload, or (if the server allows it) an http(s) URL.")

    class FieldsRequest(Strict):
        model: str
        image_url: Picture
        schema_: dict[str, Any] = Field(alias="schema", description="A JSON schema with `properties`.")
        max_slices: int | None = Field(None, ge=1, le=64, description="Most slices of the picture.")
        max_tokens: int = Field(DEFAULT_TOKENS, ge=1, description="Longest value of one field.")
        find: bool = Field(True, description="Look for the slice and box that each value was read from.")
        look_again_below: float = Field(
            0.9, ge=0, le=1, description="An answer with less confidence is asked again on its slice; 0 never does."
        )

    return FieldsRequest


def to_fields_ask(body: Any, *, most_tokens: int) -> FieldsAsk:
    """Return a request of ``fields_model`` as plain values.

    Raises:
        Refusal: 400, the schema cannot be used.
    """
    from handlens.errors import SettingError
    from handlens.fields.schema import fields_of

    try:
        fields_of(body.schema_)
    except SettingError as error:
        raise Refusal(400, str(error), param="schema") from None
    return FieldsAsk(
        model=body.model, addresses=(body.image_url.url,), schema=body.schema_, max_slices=body.max_slices,
        max_tokens=min(body.max_tokens, most_tokens), find=body.find, look_again_below=body.look_again_below,
    )  # fmt: skip


def answer_fields(worker: "Worker", job: "Job") -> Iterator["Event"]:
    """Yield one ``Ended`` with the fields; nothing when the client hung up.

    Raises:
        Refusal: 429, it waited too long; 400, the time was over before all fields were read.
    """
    from handlens.asking import Model
    from handlens.core.images import open_picture
    from handlens.engine.memory import resident_bytes
    from handlens.fields.answers import fields_to_json
    from handlens.fields.read import read_fields
    from handlens.serve.pictures import read_address
    from handlens.serve.worker import Ended

    ask = job.ask
    assert isinstance(ask, FieldsAsk)
    deadline_s = job.arrived_s + worker.settings.max_seconds
    begin = time.monotonic()
    seen, sights, num_new = worker.see(job)

    def go_on() -> None:
        if job.cancelled.is_set():
            raise _HungUp
        if time.monotonic() > deadline_s:
            raise Refusal(
                400, f"{worker.settings.max_seconds} s were over before all fields were read; ask for fewer fields, "
                "fewer slices, or without places (find: false)", code="time",
            )  # fmt: skip

    answerer = worker.answerer
    model = answerer if isinstance(answerer, Model) else Model(answerer)
    try:
        go_on()
        data = read_address(ask.addresses[0], worker.uploads, worker.settings)
        picture = open_picture(data, name="picture 1", max_pixels=worker.settings.max_pixels)
        found = read_fields(
            model, picture, ask.schema, find=ask.find, look_again_below=ask.look_again_below,
            max_tokens=ask.max_tokens, seen=seen, before_each=go_on,
        )  # fmt: skip
    except _HungUp:
        return
    from handlens.core.sight import sight_to_json

    worker.metrics.add("answers_total", why="fields")
    yield Ended(
        why="stop",
        usage={},
        handlens={
            "object": "fields", "model": ask.model, **fields_to_json(found), "image": sight_to_json(sights[0]),
            "encoded": num_new, "memory_bytes": resident_bytes(), "notice": model.info.notice,
            "seconds": {"waited": round(begin - job.arrived_s, 4), "total": round(time.monotonic() - job.arrived_s, 4)},
        },
    )  # fmt: skip


class _HungUp(Exception):
    """Nobody waits for the answer any more."""
