"""Turn raw captions into a question and a fluent answer, and refuse answers that change the facts.

Boundary: captions in, pairs out; who rewrites is behind ``Rewriter``: any ``Answerer``, an OpenAI-compatible
endpoint, or rules. Source: arXiv 2408.01800, section 4.1 (caption rewriting).
"""

import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from handlens.answerer import Answerer, Seen
from handlens.core.chat import ask
from handlens.core.sampling import Sampling
from handlens.data.facts import Difference, compare, texts_of, without_noise
from handlens.data.samples import Sample, said, talk
from handlens.errors import DataError, ModelError

PROMPT = """Below is a raw caption of a picture. Write one question that the caption answers, and the answer as one or \
two fluent, grammatical sentences. Keep every fact of the caption. Add no fact. Leave out advertising, tags, links and \
repetitions.

Caption: {caption}

Use exactly this form:
Question: ...
Answer: ..."""
QUESTIONS = (
    "What does the picture show?",
    "Describe the picture.",
    "What can be seen here?",
    "What is in this picture?",
)
MAX_TOKENS = 256
FORM = re.compile(r"Question:\s*(.+?)\s*\n+\s*Answer:\s*(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a caption becomes."""

    question: str
    answer: str


@runtime_checkable
class Rewriter(Protocol):
    """Writes the text that follows ``PROMPT``."""

    @property
    def name(self) -> str:
        """What the cache calls it."""
        ...

    def write(self, captions: Sequence[str]) -> list[str]:
        """Return one reply for each caption; empty where none could be had."""
        ...


@dataclass(frozen=True, kw_only=True)
class ByAnswerer:
    """Any model of the protocol, one caption after the other."""

    name: str
    answerer: Answerer

    def write(self, captions: Sequence[str]) -> list[str]:
        """Return greedy replies."""
        sampling = Sampling(max_tokens=MAX_TOKENS)
        return [
            "".join(
                token.text
                for token in self.answerer.answer(ask(PROMPT.format(caption=text), 0), Seen(pictures=()), sampling)
            )
            for text in captions
        ]


@dataclass(frozen=True, kw_only=True)
class ByEndpoint:
    """An OpenAI-compatible server, several requests at once."""

    name: str
    url: str
    """For example ``http://localhost:8000/v1``."""
    model: str = "default"
    key: str = ""
    jobs: int = 8
    seconds: float = 120.0
    tries: int = 3

    def write(self, captions: Sequence[str]) -> list[str]:
        """Return greedy replies; a request that fails every time gives an empty one.

        Raises:
            ModelError: no server answers there.
        """
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self._one, captions))

    def _one(self, caption: str) -> str:
        message = {"role": "user", "content": PROMPT.format(caption=caption)}
        body = {"model": self.model, "messages": [message], "temperature": 0, "max_tokens": MAX_TOKENS}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        for attempt in range(self.tries):
            try:
                with urllib.request.urlopen(request, timeout=self.seconds) as reply:
                    return str(json.load(reply)["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                if error.code in (400, 401, 403, 404) or attempt == self.tries - 1:
                    raise ModelError(
                        f"{self.url} answers {error.code} {error.reason}; check URL, model and key"
                    ) from None
            except (urllib.error.URLError, OSError) as error:
                if attempt == self.tries - 1:
                    reason = getattr(error, "reason", error)
                    raise ModelError(
                        f"no server answers at {self.url} ({reason}); start one and run it again"
                    ) from None
            except (ValueError, KeyError, IndexError, TypeError):
                continue  # nonsense is asked for again
        return ""


@dataclass(frozen=True, kw_only=True)
class ByRules:
    """No model: noise leaves, sentences get their form back. Good enough to measure with, not to ship."""

    name: str = "rules"

    def write(self, captions: Sequence[str]) -> list[str]:
        """Return replies in the form of the prompt."""
        return [f"Question: {_question(text)}\nAnswer: {tidy(text)}" for text in captions]


@dataclass
class Rewriting:
    """What became of the captions."""

    read: int = 0
    rewritten: int = 0
    cached: int = 0
    kept_raw: dict[str, int] = field(default_factory=dict)
    """Why a caption stays as it was -> how often. ``read == rewritten + sum(kept_raw)``."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    """The first few answers that changed facts."""

    def keep(self, reason: str) -> None:
        """Count one caption that stays."""
        self.kept_raw[reason] = self.kept_raw.get(reason, 0) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "read": self.read, "rewritten": self.rewritten, "cached": self.cached, "kept_raw": self.kept_raw,
            "refused": self.refused,
        }  # fmt: skip


class Cache:
    """Replies by content, one line each, so that a run that is killed goes on without asking again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._replies: dict[str, str] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                    self._replies[str(row["id"])] = str(row["reply"])
                except (ValueError, KeyError, TypeError):
                    continue  # the line in which the run was killed

    def get(self, rewriter: str, caption: str) -> str | None:
        """Return an earlier reply."""
        return self._replies.get(self._name(rewriter, caption))

    def put(self, rewriter: str, captions: Sequence[str], replies: Sequence[str]) -> None:
        """Remember replies; they are on the disk when this returns."""
        lines = []
        for caption, reply in zip(captions, replies, strict=True):
            name = self._name(rewriter, caption)
            self._replies[name] = reply
            lines.append(json.dumps({"id": name, "reply": reply}, ensure_ascii=True))
        with self._file.open("a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(lines) + "\n")

    @staticmethod
    def _name(rewriter: str, caption: str) -> str:
        return hashlib.sha256(f"{rewriter}\0{PROMPT}\0{caption}".encode()).hexdigest()


def rewrite(
    samples: Iterable[Sample], rewriter: Rewriter, cache: Cache, rewriting: Rewriting, *, batch: int = 32
) -> Iterator[Sample]:
    """Yield every sample, its caption rewritten where that changed no fact; ``rewriting`` counts.

    A caption is an only answer to no question, or to one of ``QUESTIONS``. The raw one is kept in ``truth``.
    """
    iterator = iter(samples)
    while group := list(islice(iterator, batch)):
        captions = [caption_of(sample) for sample in group]
        known = {text: cache.get(rewriter.name, text) for text in captions if text}
        missing = [text for text, reply in known.items() if reply is None]
        rewriting.cached += len(known) - len(missing)
        if missing:
            replies = rewriter.write(missing)
            cache.put(rewriter.name, missing, replies)
            known |= dict(zip(missing, replies, strict=True))
        for sample, caption in zip(group, captions, strict=True):
            rewriting.read += 1
            yield _replaced(sample, caption, known.get(caption) or "", rewriting)


def caption_of(sample: Sample) -> str:
    """Return the raw caption of a sample; empty where the conversation is something else."""
    if len(sample.chat) != 2 or not sample.images or [turn.role for turn in sample.chat] != ["user", "assistant"]:
        return ""
    question = said(sample.chat[0]).strip()
    return said(sample.chat[1]) if not question or question in QUESTIONS else ""


def parse(reply: str) -> Pair | None:
    """Return question and answer of a reply, or None where it has another form."""
    found = FORM.search(reply)
    if found is None:
        return None
    question, answer = (" ".join(part.split()) for part in found.groups())
    return Pair(question=question, answer=answer) if question and answer else None


def check_pair(pair: Pair, caption: str, truth: Any) -> Difference:
    """Return the facts that an answer adds to, or loses from, the caption; what the record knows may be added."""
    return compare(pair.answer, caption, texts_of(truth))


def tidy(caption: str) -> str:
    """Return a caption as sentences: no noise, no repetition, ordinary case.

    >>> tidy("IMG_12.jpg RED CAR IN FRONT OF HOUSE | RED CAR IN FRONT OF HOUSE #sale Buy now!")
    'Red car in front of house.'
    """
    text = re.sub(r"\s*[|]\s*", " | ", without_noise(caption)).strip(" |-")
    words = text.split()
    half = len(words) // 2
    if len(words) > 1 and len(words) % 2 == 0 and _same(words[:half], words[half:]):
        words = words[:half]
    middle = len(words) // 2
    if len(words) > 2 and len(words) % 2 and words[middle] in ("-", "|") and _same(words[:middle], words[middle + 1 :]):
        words = words[:middle]
    text = " ".join(words).strip(" |-")
    if text.isupper() or (text.istitle() and len(words) > 2):
        text = text.lower()
    text = re.sub(r"\s+([,.;])", r"\1", text)
    text = re.sub(r"(^|[.!?]\s+)([a-z])", lambda found: found[1] + found[2].upper(), text)
    return text if not text or text[-1] in ".!?" else f"{text}."


def _same(one: list[str], other: list[str]) -> bool:
    plain = [[word.strip(".,;|-").casefold() for word in words] for words in (one, other)]
    return plain[0] == plain[1]


def _question(caption: str) -> str:
    number = hashlib.sha256(caption.encode()).digest()[0]
    return QUESTIONS[number % len(QUESTIONS)]


def _replaced(sample: Sample, caption: str, reply: str, rewriting: Rewriting) -> Sample:
    if not caption:
        rewriting.keep("no-caption")
        return sample
    pair = parse(reply)
    if pair is None:
        rewriting.keep("no-answer" if not reply.strip() else "wrong-form")
        return sample
    difference = check_pair(pair, caption, sample.truth)
    if not difference.is_none:
        rewriting.keep("facts-added" if difference.added else "facts-lost")
        if len(rewriting.refused) < 10:
            rewriting.refused.append(
                {
                    "sample": sample.key, "caption": caption, "answer": pair.answer,
                    "added": sorted(difference.added), "lost": sorted(difference.lost),
                }
            )  # fmt: skip
        return sample
    rewriting.rewritten += 1
    return replace(
        sample, chat=talk([(pair.question, pair.answer)], len(sample.images)),
        truth=sample.truth | {"raw_caption": caption},
    )  # fmt: skip


def open_rewriter(name: str, *, jobs: int = 8, key: str = "") -> Rewriter:
    """Return the rewriter of a name: ``rules``, an endpoint ``http://HOST/v1#MODEL``, or a model that ``load`` knows.

    Raises:
        ModelError: no such model.
        DataError: an empty name.
    """
    if not name:
        raise DataError(
            "the rewriter has no name; give rules, a URL such as http://localhost:8000/v1#MODEL, or a model"
        )
    if name == "rules":
        return ByRules()
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        return ByEndpoint(name=name, url=url, model=model or "default", key=key, jobs=jobs)
    import handlens

    return ByAnswerer(name=name, answerer=handlens.load(name, keep=True))
