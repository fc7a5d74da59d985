"""One thread that answers one request after the other, and the bounded queue before it.

Boundary: an ``Answerer`` and plain requests; events go out through a callback and know no HTTP.
"""

import hashlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from handlens.answerer import Answerer, Seen, SeenPicture, Token
from handlens.core.images import Picture, open_picture
from handlens.core.sampling import Sampling, why_ended
from handlens.core.sight import Sight, look_at, sight_to_json
from handlens.engine.memory import resident_bytes
from handlens.errors import HandlensError
from handlens.serve.fields import FieldsAsk, answer_fields
from handlens.serve.metrics import Metrics
from handlens.serve.pictures import Uploads, read_address
from handlens.serve.settings import Refusal, ServerSettings
from handlens.serve.wire import Ask, pictures_first, usage_of

KEPT_PICTURES = 32
"""Encoded pictures that stay in memory, so that a follow-up question costs no encoding."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The pictures were seen; the answer begins."""

    handlens: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Said:
    """A piece of the answer; the text may be empty where it is held back."""

    text: str
    logprob: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The answer is over."""

    why: str
    usage: dict[str, Any]
    handlens: dict[str, Any]


Event = Started | Said | Ended | Refusal


@dataclass(eq=False)
class Job:
    """One request on its way."""

    ask: Ask | FieldsAsk
    tell: Callable[[Event], None]
    """Called from the worker's thread."""
    arrived_s: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Answers jobs in the order in which they came."""

    def __init__(self, answerer: Answerer, settings: ServerSettings, metrics: Metrics, uploads: Uploads) -> None:
        self.answerer, self.settings, self.metrics, self.uploads = answerer, settings, metrics, uploads
        self._seen: OrderedDict[tuple[str, int | None], tuple[SeenPicture, Sight]] = OrderedDict()
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._mean_s = 1.0
        """Running mean of what one request takes."""
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._jobs)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            Refusal: 429, the queue is full; 503, the server is going down.
        """
        with self._changed:
            if self._closing:
                raise Refusal(503, "the server is going down; ask again in a moment")
            if len(self._jobs) >= self.settings.max_waiting:
                raise self._too_busy(f"{len(self._jobs)} requests are waiting, as many as may wait; ask again later")
            self._jobs.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a job back; its place in the queue, or the model, is free at once or after the present token."""
        job.cancelled.set()
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def close(self, patience_s: float = 10.0) -> None:
        """Answer what is waiting no more, finish the present token, and end the thread."""
        with self._changed:
            self._closing = True
            for job in self._jobs:
                job.tell(Refusal(503, "the server is going down; ask again in a moment"))
            self._jobs.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _too_busy(self, message: str) -> Refusal:
        refusal = Refusal(429, message, code="queue_full")
        refusal.retry_after_s = max(1, round(self._mean_s * max(1, len(self._jobs))))
        return refusal

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                job = self._jobs.popleft()
            begin = time.monotonic()
            try:
                for event in self._events(job):
                    job.tell(event)
            except Refusal as refusal:
                job.tell(refusal)
            except HandlensError as error:
                job.tell(Refusal(400, str(error)))
            except Exception as error:  # the thread must live on; the client learns that it was no fault of his
                job.tell(Refusal(500, f"unexpected {type(error).__name__}: {error}; this is a defect of handlens"))
            self._mean_s = 0.8 * self._mean_s + 0.2 * (time.monotonic() - begin)

    def _events(self, job: Job) -> Iterator[Event]:
        if time.monotonic() > job.arrived_s + self.settings.max_seconds:
            raise self._too_busy(f"the request waited {self.settings.max_seconds} s, as long as it may; ask again")
        if isinstance(job.ask, FieldsAsk):
            yield from answer_fields(self, job)
        else:
            yield from self._answer(job, job.ask)

    def _answer(self, job: Job, ask: Ask) -> Iterator[Event]:
        """Yield what happens; ends early, and silently, when the job is cancelled."""
        deadline_s = job.arrived_s + self.settings.max_seconds
        begin = time.monotonic()
        if self.answerer.info.family == "nano":
            ask = replace(ask, chat=pictures_first(ask.chat))
        seen, sights, num_new = self.see(job)
        if job.cancelled.is_set():
            return
        saw_s = time.monotonic() - begin
        watched: list[np.ndarray] = []
        sampling = self._sampling(ask, watched)
        prompt_tokens = self._count_prompt(ask, seen)
        images = [sight_to_json(sight) for sight in sights]
        yield Started(handlens={"images": images, "encoded": num_new, "memory_bytes": resident_bytes()})
        said, tokens, first_s, why = _Stopper(ask.stop), [], 0.0, ""
        for token in self.answerer.answer(ask.chat, seen, sampling):
            tokens.append(token)
            first_s = first_s or time.monotonic()
            if job.cancelled.is_set():
                return
            text = said.push(token.text)
            if said.found or text or ask.logprobs:
                yield Said(text=text, logprob=self._logprob(token, watched, ask.top_logprobs) if ask.logprobs else None)
            watched.clear()
            if said.found or time.monotonic() > deadline_s:
                why = "stop" if said.found else "time"
                break
        last_s = time.monotonic()
        if rest := said.rest():
            yield Said(text=rest)
        claims = self._check(job, ask, seen, "".join(token.text for token in tokens)) if ask.check else {}
        why = why or self._why([token.id for token in tokens], sampling, prompt_tokens)
        visual = sum(sight.visual_tokens for sight in sights)
        self._count(job, tokens, prompt_tokens, why, first_s or last_s, last_s)
        rate = (len(tokens) - 1) / (last_s - first_s) if len(tokens) > 1 and last_s > first_s else 0.0
        yield Ended(
            why=why,
            usage=usage_of(prompt_tokens, len(tokens), visual),
            handlens={
                "images": images,
                "encoded": num_new,
                "ended": why,
                "visual_tokens": visual,
                "seconds": {
                    "waited": round(begin - job.arrived_s, 4),
                    "saw": round(saw_s, 4),
                    "first_word": round((first_s or last_s) - job.arrived_s, 4),
                    "total": round(last_s - job.arrived_s, 4),
                },
                "tokens_per_second": round(rate, 2),
                "memory_bytes": resident_bytes(),
                "notice": self.answerer.info.notice,
                **claims,
            },
        )

    def _check(self, job: Job, ask: Ask, seen: Seen, answer: str) -> dict[str, Any]:
        """Return the claims of an answer with the verdict on each; they are judged on all pictures."""
        from handlens.align.check import check, checked_to_json

        if job.cancelled.is_set():
            return {}
        question = " ".join(part for part in ask.chat[-1].content if isinstance(part, str))
        return checked_to_json(check(self.answerer, seen, question, answer))

    def see(self, job: Job) -> tuple[Seen, list[Sight], int]:
        """Return the pictures of a conversation; those seen before are taken from memory."""
        found: list[tuple[SeenPicture, Sight]] = []
        num_new = 0
        for number, address in enumerate(job.ask.addresses, start=1):
            data = read_address(address, self.uploads, self.settings)
            key = (hashlib.sha256(data).hexdigest(), job.ask.max_slices)
            if key not in self._seen:
                if job.cancelled.is_set():
                    break
                self._seen[key] = self._encode(data, f"picture {number}", job.ask.max_slices)
                num_new += 1
            self._seen.move_to_end(key)
            found.append(self._seen[key])
        while len(self._seen) > KEPT_PICTURES:
            self._seen.popitem(last=False)
        self.metrics.add("pictures_total", num_new, how="encoded")
        self.metrics.add("pictures_total", len(found) - num_new, how="memory")
        return Seen(pictures=tuple(shown for shown, _ in found)), [sight for _, sight in found], num_new

    def _encode(self, data: bytes, name: str, max_slices: int | None) -> tuple[SeenPicture, Sight]:
        picture: Picture = open_picture(data, name=name, max_pixels=self.settings.max_pixels)
        (shown,) = self.answerer.see([picture], max_slices=max_slices).pictures
        return shown, look_at(picture, shown.plan, self.answerer.info.num_queries)

    def _sampling(self, ask: Ask, watched: list[np.ndarray]) -> Sampling:
        constraint = None
        if ask.form != "text":
            from handlens.core.grammar import GrammarConstraint
            from handlens.core.json_grammar import json_grammar

            tokenizer = getattr(self.answerer, "tokenizer", None)
            if tokenizer is None:
                raise Refusal(400, f"{ask.model} cannot be held to a form here", param="response_format")
            constraint = GrammarConstraint(json_grammar(ask.schema), tokenizer)
            if constraint.shortest > ask.max_tokens:
                raise Refusal(
                    400,
                    f"the shortest answer to this schema has {constraint.shortest} bytes, but max_tokens is "
                    f"{ask.max_tokens}; ask for at least {constraint.shortest}",
                    param="max_tokens",
                )
        return Sampling(
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            top_p=ask.top_p,
            top_k=ask.top_k,
            repetition_penalty=ask.repetition_penalty,
            seed=ask.seed,
            constraint=constraint,
            watch=watched.append if ask.top_logprobs else None,
        )

    def _logprob(self, token: Token, watched: list[np.ndarray], count: int) -> dict[str, Any]:
        """Return a token as OpenAI's ``logprobs.content`` has it."""
        tops: list[dict[str, Any]] = []
        if watched:
            order = np.argsort(-watched[-1], kind="stable")[:count]
            tops = [self._token_json(int(place), float(watched[-1][place])) for place in order]
        return {**self._token_json(token.id, token.logprob), "top_logprobs": tops}

    def _token_json(self, token_id: int, logprob: float) -> dict[str, Any]:
        tokenizer = getattr(self.answerer, "tokenizer", None)
        text = tokenizer.fast.id_to_token(token_id) if tokenizer and tokenizer.is_special(token_id) else ""
        if tokenizer and not text:
            text = tokenizer.decode([token_id])
        return {"token": text, "logprob": max(-9999.0, logprob), "bytes": list(text.encode())}

    def _count_prompt(self, ask: Ask, seen: Seen) -> int:
        make = getattr(self.answerer, "prompt", None)
        return len(make(ask.chat, seen).ids) if make else 0

    def _why(self, ids: list[int], sampling: Sampling, prompt_tokens: int) -> str:
        left = getattr(self.answerer, "max_positions", 1 << 30) - prompt_tokens
        why = "length" if len(ids) >= left else why_ended(ids, sampling)
        if why == "stop" or sampling.constraint is None:
            return why
        state = sampling.constraint.start()
        for token_id in ids:
            state = sampling.constraint.advance(state, token_id)
        return "closed" if sampling.constraint.is_whole(state) else why

    def _count(
        self, job: Job, tokens: list[Token], prompt_tokens: int, why: str, first_s: float, last_s: float
    ) -> None:
        self.metrics.add("tokens_total", prompt_tokens, kind="prompt")
        self.metrics.add("tokens_total", len(tokens), kind="answer")
        self.metrics.add("answers_total", why=why)
        self.metrics.observe("first_word_seconds", first_s - job.arrived_s)
        self.metrics.observe("answer_seconds", last_s - job.arrived_s)


class _Stopper:
    """Holds text back while it may be the beginning of a stop text; what follows a stop text is dropped.

    >>> stopper = _Stopper(("END",))
    >>> [stopper.push(text) for text in ("one E", "N two", " EN", "D three")], stopper.rest()
    (['one ', 'EN two', ' ', ''], '')
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return what can be said now."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            said, self._held = self._held[: min(places)], ""
            return said
        longest = max((self._overlap(stop) for stop in self._stops), default=0)
        said, self._held = self._held[: len(self._held) - longest], self._held[len(self._held) - longest :]
        return said

    def rest(self) -> str:
        """Return what was held back when the answer ended by itself."""
        return "" if self.found else self._held

    def _overlap(self, stop: str) -> int:
        """Return how many characters at the end of the held text begin the stop text."""
        most = min(len(stop) - 1, len(self._held))
        return next((size for size in range(most, 0, -1) if self._held.endswith(stop[:size])), 0)
