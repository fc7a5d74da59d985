"""Divide with a language model: one prompt takes claims out of an answer, another turns each into a question.

Boundary: text in, a ``Division`` out, whatever the model replies; ``claims.py`` has the rules that need no model.
Source: RLAIF-V (arXiv 2405.17220), section 3.2; the prompts are our own words.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from handlens.align.claims import LONGEST, Claim, Division, coverage, divide
from handlens.align.journal import Journal
from handlens.align.judge import question_of
from handlens.answerer import Answerer, Seen
from handlens.core.chat import ask
from handlens.core.sampling import Sampling
from handlens.data.spread import spread_over
from handlens.errors import ModelError

VERSION = "1"
"""Of the two prompts below; written into every journal, so that numbers of different prompts are never mixed."""
SPLIT = """Below are a question about a picture and an answer to it. Write down the facts that the answer states about \
the picture. Each fact is one short sentence that can be understood without the others: name the thing, never "it". \
Keep numbers, names, negations and tense as they are. State one fact per sentence. Leave out opinions, guesses, \
feelings, greetings and questions. Add nothing that the answer does not say. If the answer states no fact, write NONE.

Question: {question}
Answer: {answer}

Use exactly this form:
Facts:
- ..."""
QUESTION = """Turn the statement into a question that can be answered with yes or no. The answer yes must mean that \
the statement is true. Keep every word that carries meaning, the tense, and every negation.

Statement: {claim}

Use exactly this form:
Question: ..."""
TRIES = 3
MAX_TOKENS = 512
Say = Callable[[str, int, float], str]
"""``say(prompt, max_tokens, temperature)`` -> the reply."""
Doubt = Literal["", "no reply", "nonsense", "facts lost", "facts added"]
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+(.+?)\s*$", re.MULTILINE)
_FACTS = re.compile(r"facts?\s*:", re.IGNORECASE)
_NONE = re.compile(r"^\W*(?:facts?\s*:)?\W*none\W*$", re.IGNORECASE)
_ASKED = re.compile(r"(?:question\s*:)?\s*(.+?\?)\s*$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Divided:
    """A division with the question to every claim, and what went wrong on the way."""

    division: Division
    questions: tuple[str, ...]
    retried: tuple[Doubt, ...] = ()
    """Why a reply was asked for again, once for each time."""


def by_rules(question: str, answer: str) -> Divided:
    """Return the claims that rules find."""
    division = divide(question, answer)
    return Divided(division=division, questions=tuple(question_of(claim.text) for claim in division.claims))


def by_model(say: Say, question: str, answer: str) -> Divided:
    """Return the claims that a language model finds.

    A reply is asked for again when there is none, when it has another form, or when it loses or adds a fact. After
    the last try a claim with an added word is left out, lost words are told, and a nonsense reply makes the answer
    ``unread``: it is never scored.
    """
    if not answer.strip():
        return Divided(division=divide(question, answer), questions=())
    told = " ".join(answer.split()[:LONGEST]) if len(answer.split()) > LONGEST else answer
    retried: list[Doubt] = []
    best: Division | None = None
    for attempt in range(TRIES):
        reply = _say(say, SPLIT.format(question=question, answer=told), 0.3 * attempt)
        division = _read(reply, question, answer)
        doubt = _doubt(reply, division)
        if division is not None and (best is None or len(division.lost) < len(best.lost)):
            best = division
        if not doubt:
            break
        retried.append(doubt)
    if best is None:
        unread = Division(claims=(), status="unread", note=f"the splitter gave no list of facts ({retried[-1]})")
        return Divided(division=unread, questions=(), retried=tuple(retried))
    return Divided(
        division=best, questions=tuple(_question(say, claim.text) for claim in best.claims), retried=tuple(retried)
    )


def _doubt(reply: str, division: Division | None) -> Doubt:
    if not reply.strip():
        return "no reply"
    if division is None:
        return "nonsense"
    return "facts added" if division.added else "facts lost" if division.lost else ""


def _say(say: Say, prompt: str, temperature: float) -> str:
    try:
        return say(prompt, MAX_TOKENS, temperature)
    except ModelError:  # asked again by the caller; an endpoint that died stays silent
        return ""


def _read(reply: str, question: str, answer: str) -> Division | None:
    """Return the claims of a reply; None where it has another form."""
    if _NONE.match(reply.strip()):
        return Division(claims=(), dropped=(answer,), status="no_claim", note="the splitter finds no fact")
    start = _FACTS.search(reply)
    texts = [" ".join(text.split()) for text in _BULLET.findall(reply[start.end() :] if start else reply)]
    if not texts:
        return None
    _, added = coverage(question, answer, texts)
    kept = [text for text in dict.fromkeys(texts) if not coverage(question, answer, [text])[1]]
    lost, _ = coverage(question, answer, kept)
    if not kept:
        return None
    claims = tuple(Claim(text, *_place(text, answer)) for text in kept)
    return Division(claims=claims, lost=lost, added=added)


def _place(claim: str, answer: str) -> tuple[int, int]:
    """Return the sentence of the answer that shares most words with a claim."""
    words, spans, start = set(claim.casefold().split()), [], 0
    for piece in re.split(r"(?<=[.!?。])\s+|\n+", answer):
        first = answer.index(piece, start) if piece else start
        spans.append((len(words & set(piece.casefold().split())), -first, first, first + len(piece)))
        start = first + len(piece)
    _, _, first, last = max(spans)
    return first, last


def _question(say: Say, claim: str) -> str:
    """Return the model's yes/no question, or that of the rules where the reply is none or loses a word."""
    found = _ASKED.search(_say(say, QUESTION.format(claim=claim), 0.0))
    if found is None:
        return question_of(claim)
    question = " ".join(found[1].split())
    lost, added = coverage("", claim, [question])
    return question_of(claim) if lost or added or _negates(question) != _negates(claim) else question


def _negates(text: str) -> bool:
    return re.search(r"\b(?:no|not|never|without)\b|n't\b", text, re.IGNORECASE) is not None


def open_say(name: str) -> Say:
    """Return how a language model is asked: an address ``http://host/v1#model``, or a model that ``load`` knows.

    Raises:
        ModelError: there is no such model.
    """
    if name.startswith(("http://", "https://")):
        from handlens.engine.openai import open_endpoint

        return open_endpoint(name).say
    import handlens

    return say_with(handlens.load(name, keep=True))


def say_with(answerer: Answerer) -> Say:
    """Return how any answerer is asked without a picture."""

    def say(prompt: str, max_tokens: int, temperature: float) -> str:
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        return "".join(token.text for token in answerer.answer(ask(prompt, 0), Seen(pictures=()), sampling))

    return say


@dataclass(frozen=True)
class DivideOne:
    """The work on the answers to one question; travels to other processes."""

    divider: str
    opened: dict[str, Say] = field(default_factory=dict, compare=False)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of a question: what became of every answer, equal answers divided once."""
        known: dict[str, Divided] = {}
        for answer in row["answers"]:
            if answer["text"] not in known:
                known[answer["text"]] = self._divide(row["question"], answer["text"])
        return {
            "id": row["id"],
            "question": row["question"],
            "answers": [{"text": answer["text"]} | to_json(known[answer["text"]]) for answer in row["answers"]],
        }

    def _divide(self, question: str, answer: str) -> Divided:
        if self.divider == "rules":
            return by_rules(question, answer)
        if self.divider == "whole":
            return as_whole(answer)
        if self.divider not in self.opened:
            self.opened[self.divider] = open_say(self.divider)
        return by_model(self.opened[self.divider], question, answer)


def as_whole(answer: str) -> Divided:
    """Return the whole answer as one claim: the holistic score that divide and conquer is compared with."""
    division = divide("", answer)
    if division.status != "ok":
        return Divided(division=division, questions=())
    text = answer.strip()
    whole = replace(division, claims=(Claim(text, 0, len(answer)),), dropped=(), lost=(), added=())
    return Divided(division=whole, questions=(f"Is this true of the picture: “{text.rstrip('.')}”?",))


def divide_all(
    rows: Iterable[dict[str, Any]], divider: str, journal: Journal, *, engine: str = "local", jobs: int = 1,
    news: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:  # fmt: skip
    """Divide every answer that the journal lacks; return how often each thing happened to an answer.

    Raises:
        ModelError: the language model cannot be opened.
    """
    waiting = [row for row in rows if row["status"] == "ok" and row["id"] not in journal.rows]
    if waiting and divider not in ("rules", "whole"):
        open_say(divider)
    with spread_over(engine, jobs) as apply:
        for done, row in enumerate(apply(DivideOne(divider), waiting), start=1):
            journal.add(row)
            news(done, len(waiting))
    return count_divisions(journal.rows.values())


def count_divisions(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return what happened to the answers, and how often."""
    counts = {"answers": 0, "claims": 0}

    def add(name: str, number: int = 1) -> None:
        counts[name] = counts.get(name, 0) + number

    for row in rows:
        for answer in row["answers"]:
            add("answers")
            add("claims", len(answer["claims"]))
            add(answer["status"])
            for name in ("lost", "added", "dropped"):
                add(f"answers with {name} parts", bool(answer[name]))
            for doubt in answer["retried"]:
                add(f"replies asked for again: {doubt}")
    return counts


def to_json(divided: Divided) -> dict[str, Any]:
    """Return plain values."""
    division = divided.division
    return {
        "status": division.status,
        "note": division.note,
        "claims": [
            {"text": claim.text, "start": claim.start, "end": claim.end, "question": question}
            for claim, question in zip(division.claims, divided.questions, strict=True)
        ],
        "dropped": list(division.dropped),
        "lost": list(division.lost),
        "added": list(division.added),
        "retried": list(divided.retried),
    }
