"""The OpenAI chat format: what comes in is checked and becomes plain values, what goes out is written here.

Boundary: pydantic, imported when a server starts; knows no model. Keys of the OpenAI API that cannot be served are
accepted only with the value that asks for nothing, so that no request is half obeyed in silence.
"""

import functools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from handlens.core.chat import Chat, Shown, Turn
from handlens.errors import did_you_mean
from handlens.serve.settings import Refusal

DEFAULT_TOKENS = 512
Form = dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A checked request."""

    model: str
    chat: Chat
    addresses: tuple[str, ...]
    """Data URIs, uploads or URLs of the pictures, in the order of ``Shown.index``."""
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int
    stop: tuple[str, ...]
    form: Literal["text", "json_object", "json_schema"]
    schema: Form
    logprobs: bool
    top_logprobs: int
    stream: bool
    include_usage: bool
    max_slices: int | None
    """None takes the model's."""
    check: bool = False
    """Judge every claim of the answer."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created_s: int = field(default_factory=lambda: int(time.time()))


@functools.cache
def request_model() -> Any:
    """Return the pydantic model of a chat completion request; its JSON schema is what the server publishes."""
    from pydantic import BaseModel, ConfigDict, Field

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class TextPart(Strict):
        type: Literal["text"]
        text: str

    class ImageUrl(Strict):
        url: str = Field(description="A data URI, the id of an upload, or (if the server allows it) an http(s) URL.")
        detail: Literal["auto", "low", "high"] = Field("auto", description="low shows the overview without slices.")

    class ImagePart(Strict):
        type: Literal["image_url"]
        image_url: ImageUrl

    class FileId(Strict):
        file_id: str

    class FilePart(Strict):
        type: Literal["file"]
        file: FileId

    class Message(Strict):
        role: Literal["system", "developer", "user", "assistant"]
        content: str | list[TextPart | ImagePart | FilePart]
        name: str | None = None
        refusal: None = None

    class JsonSchema(Strict):
        name: str = Field("answer", max_length=64)
        description: str | None = None
        schema_: dict[str, Any] | None = Field(None, alias="schema")
        strict: bool | None = None

    class ResponseFormat(Strict):
        type: Literal["text", "json_object", "json_schema"]
        json_schema: JsonSchema | None = None

    class StreamOptions(Strict):
        include_usage: bool = False
        include_obfuscation: bool = False

    class ChatCompletionRequest(Strict):
        model: str
        messages: list[Message] = Field(min_length=1)
        max_tokens: int | None = Field(None, ge=1)
        max_completion_tokens: int | None = Field(None, ge=1)
        temperature: float | None = Field(None, ge=0, le=2, description="Without it 0: the likeliest answer.")
        top_p: float | None = Field(None, gt=0, le=1)
        top_k: int | None = Field(None, ge=0, description="Not OpenAI's: sample from so many tokens; 0 is all.")
        repetition_penalty: float | None = Field(None, gt=0, le=10, description="Not OpenAI's: above 1 repeats less.")
        max_slices: int | None = Field(None, ge=1, le=64, description="Not OpenAI's: most slices of a picture.")
        check: bool | None = Field(None, description="Not OpenAI's: judge every claim of the answer on the picture.")
        seed: int | None = Field(None, ge=0, le=2**63 - 1)
        stop: str | list[str] | None = Field(None, max_length=64)
        stream: bool | None = None
        stream_options: StreamOptions | None = None
        response_format: ResponseFormat | None = None
        logprobs: bool | None = None
        top_logprobs: int | None = Field(None, ge=0, le=20)
        # Accepted because clients send them; they change no answer.
        user: str | None = None
        store: bool | None = None
        metadata: dict[str, str] | None = None
        service_tier: str | None = None
        safety_identifier: str | None = None
        prompt_cache_key: str | None = None
        parallel_tool_calls: bool | None = None
        # Accepted only where they ask for nothing.
        n: Literal[1] | None = None
        modalities: list[Literal["text"]] | None = None
        frequency_penalty: float | None = Field(None, ge=0, le=0, description="Use repetition_penalty.")
        presence_penalty: float | None = Field(None, ge=0, le=0, description="Use repetition_penalty.")
        logit_bias: dict[str, int] | None = Field(None, max_length=0)
        tools: list[Any] | None = Field(None, max_length=0)
        tool_choice: Literal["none", "auto"] | None = None

    return ChatCompletionRequest


def to_ask(body: Any, *, most_tokens: int, most_pictures: int) -> Ask:
    """Return a request of ``request_model`` as plain values.

    Raises:
        Refusal: 400, the messages cannot be a conversation, or two options contradict each other.
    """
    chat, addresses, is_low = _conversation(body.messages)
    if len(addresses) > most_pictures:
        raise Refusal(
            400, f"the conversation shows {len(addresses)} pictures; {most_pictures} are allowed", param="messages"
        )
    form: Literal["text", "json_object", "json_schema"] = body.response_format.type if body.response_format else "text"
    given = body.response_format.json_schema if body.response_format else None
    if form == "json_schema" and (given is None or given.schema_ is None):
        raise Refusal(400, "response_format json_schema needs json_schema.schema", param="response_format")
    if body.top_logprobs and not body.logprobs:
        raise Refusal(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > 4 or "" in stop:
        raise Refusal(400, f"stop has {len(stop)} texts; up to 4 that are not empty are allowed", param="stop")
    asked = body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS
    return Ask(
        model=body.model,
        chat=chat,
        addresses=addresses,
        max_tokens=min(asked, most_tokens),
        temperature=float(body.temperature or 0),
        top_p=1.0 if body.top_p is None else float(body.top_p),
        top_k=body.top_k or 0,
        repetition_penalty=float(body.repetition_penalty or 1),
        seed=body.seed or 0,
        stop=stop,
        form=form,
        schema=given.schema_ if given else None,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        max_slices=1 if is_low else body.max_slices,
        check=bool(body.check) and bool(addresses),
    )


def _conversation(messages: Sequence[Any]) -> tuple[Chat, tuple[str, ...], bool]:
    """Return the turns, the pictures' addresses, and whether every picture asks for low detail."""
    turns: list[Turn] = []
    addresses: list[str] = []
    details: list[str] = []
    for message in messages:
        parts: list[str | Shown] = []
        for part in [message.content] if isinstance(message.content, str) else message.content:
            if isinstance(part, str):
                parts.append(part)
            elif part.type == "text":
                parts.append(part.text)
            else:
                parts.append(Shown(len(addresses)))
                addresses.append(part.image_url.url if part.type == "image_url" else part.file.file_id)
                details.append(part.image_url.detail if part.type == "image_url" else "auto")
        if any(isinstance(part, str) and not _is_text(part) for part in parts):
            raise Refusal(
                400, "a message holds half of a character (a lone surrogate); send whole text", param="messages"
            )
        if message.role != "user" and any(isinstance(part, Shown) for part in parts):
            raise Refusal(400, f"a message of role {message.role} shows a picture; show it as user", param="messages")
        turns.append(Turn("system" if message.role == "developer" else message.role, tuple(parts)))
    if turns[-1].role != "user":
        raise Refusal(400, f"the last message is of role {turns[-1].role}; it must be the user's", param="messages")
    if not any(isinstance(part, Shown) or part.strip() for part in turns[-1].content):
        raise Refusal(400, "the last message is empty; ask something", param="messages")
    return tuple(turns), tuple(addresses), bool(details) and set(details) == {"low"}


def pictures_first(chat: Chat) -> Chat:
    """Return a conversation in which no message ends with a picture: its pictures stand before its words.

    OpenAI's clients write the question first; a small model was only ever shown the picture first.

    >>> [turn.content for turn in pictures_first((Turn("user", ("What?", Shown(0))),))]
    [(Shown(index=0), 'What?')]
    """
    return tuple(
        Turn(turn.role, tuple(sorted(turn.content, key=lambda part: isinstance(part, str))))
        if turn.content and isinstance(turn.content[-1], Shown)
        else turn
        for turn in chat
    )


def _is_text(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:
        return False
    return True


def explain(errors: Sequence[Any], *, path: str = "/v1/chat/completions") -> Refusal:
    """Return the first of pydantic's errors as one teaching sentence; ``path`` is what was asked."""
    error = errors[0]
    parts = [str(part) for part in error["loc"] if part != "body"]
    kind, place = error["type"], ".".join(parts) or "the body"
    if kind == "json_invalid":
        reason = error.get("ctx", {}).get("error", "")
        return Refusal(400, f"the body is not JSON ({reason}); send one JSON object", code="invalid_json")
    if kind == "extra_forbidden":
        hint = did_you_mean(parts[-1], _known_keys(path)) if len(parts) == 1 else ""
        return Refusal(400, f"unknown key {place!r}{hint}", param=place, code="unknown_key")
    if kind in ("model_attributes_type", "missing") and not parts:
        return Refusal(400, "the body is no JSON object; send one with content-type application/json")
    return Refusal(400, f"{place}: {error['msg']}", param=place)


def _known_keys(path: str) -> set[str]:
    from handlens.serve.fields import fields_model

    model = fields_model() if path.endswith("/fields") else request_model()
    return {field.alias or name for name, field in model.model_fields.items()}


def completion(
    ask: Ask, text: str, ended: str, logprobs: list[Any] | None, usage: Any, handlens: Any
) -> dict[str, Any]:
    """Return a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason(ended), "logprobs": _listed(logprobs)}
    return {**_head(ask, "chat.completion"), "choices": [choice], "usage": usage, "handlens": handlens}


def chunk(
    ask: Ask, delta: dict[str, Any], ended: str | None = None, logprobs: Any = None, **more: Any
) -> dict[str, Any]:
    """Return one piece of a streamed answer."""
    reason = finish_reason(ended) if ended else None
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": _listed(logprobs)}
    return {**_head(ask, "chat.completion.chunk"), "choices": [choice], **more}


def usage_chunk(ask: Ask, usage: Any) -> dict[str, Any]:
    """Return the last piece that ``stream_options.include_usage`` asks for."""
    return {**_head(ask, "chat.completion.chunk"), "choices": [], "usage": usage}


def usage_of(prompt_tokens: int, answer_tokens: int, visual_tokens: int) -> dict[str, Any]:
    """Return the counts of tokens; visual tokens are part of the prompt."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer_tokens,
        "total_tokens": prompt_tokens + answer_tokens,
        "prompt_tokens_details": {"image_tokens": visual_tokens},
    }


def finish_reason(ended: str) -> Literal["stop", "length"]:
    """Return OpenAI's word: what was cut by length, time or the loop guard is ``length``.

    An answer with a set form that was led to a whole end in time (``closed``) is not cut.

    >>> finish_reason("loop"), finish_reason("closed"), finish_reason("stop")
    ('length', 'stop', 'stop')
    """
    return "stop" if ended in ("stop", "closed") else "length"


def _head(ask: Ask, kind: str) -> dict[str, Any]:
    return {
        "id": ask.id,
        "object": kind,
        "created": ask.created_s,
        "model": ask.model,
        "system_fingerprint": None,
        "service_tier": None,
    }


def _listed(logprobs: list[Any] | None) -> dict[str, Any] | None:
    return None if logprobs is None else {"content": logprobs, "refusal": None}
