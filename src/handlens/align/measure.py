"""What alignment has to show for itself: made-up things before and after, the judge against the truth, the warnings.

Boundary: answerers in, figures with 95 % intervals out; generated pictures that training never showed, and their
exact truth.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

from handlens.align.asks import Ask, drawn_asks
from handlens.align.check import is_examined, request_for
from handlens.align.claims import divide
from handlens.align.judge import Calibration, calibrate, judge
from handlens.align.sample import tokens_of, torch_model
from handlens.align.truth import Mentions, hallucination, is_true, rate_mentions
from handlens.answerer import Answerer, Seen
from handlens.core.chat import Chat
from handlens.core.chat import ask as ask_once
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.data.generate.scene_talk import COLOURS, SHAPES
from handlens.data.records import Record
from handlens.engine.answerer import Lens
from handlens.errors import SettingError
from handlens.eval.stats import Interval, bootstrap

News = Callable[[int, int], None]
ANSWERED_TOGETHER = 32
"""Questions to which a torch model gives its greedy answers at once."""
KINDS = ("lines", "scenes", "receipts", "labels", "tables")
"""Kinds of pictures that the general tasks ask about."""
_PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number and how sure it is."""

    value: float
    interval: Interval


def scenes(count: int, seed: int = 5, level: float = 0.5) -> list[tuple[Ask, Record]]:
    """Return questions about held-out scenes, with their truth."""
    asks = drawn_asks(count, seed=seed, split="heldout", level=level)
    return [(one, record) for one in asks if (record := one.picture.record()) is not None]


def describe_all(
    answerer: Answerer, some: Sequence[tuple[Ask, Record]], *, max_tokens: int = 256, news: News = lambda done, of: None
) -> list[str]:
    """Return the greedy answer to every question."""
    shown = [(one.picture.open, [one.question]) for one, _ in some]
    return [answer for (answer,) in answer_all(answerer, shown, max_tokens=max_tokens, news=news)]


def general_tasks(
    answerer: Answerer, count: int, *, kinds: Sequence[str] = KINDS, news: News = lambda done, of: None
) -> dict[str, list[bool]]:
    """Return kind -> whether each question of ``handlens eval nano`` about it is answered to the letter.

    The pictures are those of ``handlens eval nano --count COUNT``: held out, seed 1, damage 0.5.
    """
    from handlens.data.generate import generate

    told: dict[str, list[bool]] = {}
    for number, kind in enumerate(kinds):
        records = [generate(kind, 1, index, split="heldout", level=0.5) for index in range(count)]
        shown = [
            (partial(Picture, record.picture, record.key), [turn.question for turn in record.turns])
            for record in records
        ]
        answers = answer_all(answerer, shown, max_tokens=160)
        told[kind] = [
            answer.strip() == turn.answer.strip()
            for record, some in zip(records, answers, strict=True)
            for turn, answer in zip(record.turns, some, strict=True)
        ]
        news(number + 1, len(kinds))
    return told


def answer_all(
    answerer: Answerer,
    shown: Sequence[tuple[Callable[[], Picture], Sequence[str]]],
    *,
    max_tokens: int,
    news: News = lambda done, of: None,
) -> list[list[str]]:
    """Return the greedy answers to all questions about pictures; a torch model answers many at once."""
    sampling = Sampling(max_tokens=max_tokens)
    model = torch_model(answerer)
    waiting: list[tuple[Chat, Seen]] = []
    answers: list[str] = []
    for number, (opened, questions) in enumerate(shown, start=1):
        seen = answerer.see([opened()])
        waiting += [(ask_once(question), seen) for question in questions]
        if model is None or len(waiting) >= ANSWERED_TOGETHER or number == len(shown):
            answers += _greedy(answerer, model, waiting, sampling)
            waiting = []
            news(number, len(shown))
    left = iter(answers)
    return [[next(left) for _ in questions] for _, questions in shown]


def _greedy(answerer: Answerer, model: Any, asked: Sequence[tuple[Chat, Seen]], sampling: Sampling) -> list[str]:
    if model is None:
        return ["".join(token.text for token in answerer.answer(chat, seen, sampling)) for chat, seen in asked]
    from handlens.align.together import answer_together

    told = (
        answer_together(cast(Lens, answerer), model, [(chat, seen, [sampling]) for chat, seen in asked])
        if asked
        else []
    )
    return ["".join(token.text for token in tokens_of(answerer, said)) for (said,) in told]


def rates(answers: Sequence[str], some: Sequence[tuple[Ask, Record]]) -> dict[str, Figure]:
    """Return response and mention rate, recall (percent) and words, with bootstrap intervals over pictures."""
    units = [rate_mentions(answer, record.things) for answer, (_, record) in zip(answers, some, strict=True)]
    return {name: figure(units, name) for name in ("response", "mention", "recall", "words")}


def figure(units: Sequence[Mentions], name: str) -> Figure:
    """Return one rate of ``hallucination`` with its interval."""

    def one(drawn: Sequence[Mentions]) -> float:
        return float(getattr(hallucination(drawn), name))

    return Figure(value=one(units), interval=bootstrap(units, one))


def claims_of(record: Record, rng: random.Random) -> list[tuple[str, str, bool]]:
    """Return kind, claim and truth: half true, half false in exactly one word.

    Kinds are ``thing`` (There is a red ring.), ``size`` and ``place``. A false thing has the colour or the shape of one
    that is there, as the scenes' own questions have.
    """
    from handlens.data.generate.scene_places import place

    found = []
    for thing in record.things:
        where = place(thing, *record.picture.size)
        for kind in ("thing", "size", "place"):
            told = {"size": "", "colour": thing.colour, "shape": thing.shape, "place": ""}
            told |= {"size": thing.size} if kind == "size" else {"place": where} if kind == "place" else {}
            if rng.random() < 0.5:
                if kind == "size":
                    told["size"] = "small" if thing.size == "large" else "large"
                elif kind == "place":
                    told["place"] = rng.choice([other for other in _PLACES if other != where])
                elif rng.random() < 0.5:
                    told["colour"] = rng.choice([other for other in COLOURS if other != thing.colour])
                else:
                    told["shape"] = rng.choice([other for other in SHAPES if other != thing.shape])
            words = " ".join(word for word in (told["size"], told["colour"], told["shape"]) if word)
            claim = f"There is {'an' if words[0] in 'aeiou' else 'a'} {words}"
            claim += f" at the {told['place']}." if told["place"] else "."
            truth = is_true(claim, record)
            assert truth is not None
            found.append((kind, claim, truth))
    return found


def measure_judge(
    answerer: Answerer, some: Sequence[tuple[Ask, Record]], *, seed: int = 1, yes_no: bool = False,
    news: News = lambda done, of: None,
) -> dict[str, Any]:  # fmt: skip
    """Return accuracy, area under the curve and calibration error of a judge, in all and by kind of claim.

    Claims that it leaves unread are counted and stand in no figure.
    """
    rng = random.Random(f"{seed}/claims")
    rows: list[tuple[str, float, bool]] = []
    is_open = is_examined(answerer) and not yes_no
    unread = 0
    for number, (one, record) in enumerate(some, start=1):
        claims = claims_of(record, rng)
        seen = answerer.see([one.picture.open()])
        told = judge(answerer, seen, [claim for _, claim, _ in claims], request=request_for(answerer), is_open=is_open)
        for (kind, _, truth), judged in zip(claims, told, strict=True):
            if judged.probability is None:
                unread += 1
            else:
                rows.append((kind, judged.probability, truth))
        news(number, len(some))
    kinds = ["all", *dict.fromkeys(kind for kind, _, _ in rows)]
    return {"unread": unread} | {kind: _calibration([row for row in rows if kind in ("all", row[0])]) for kind in kinds}


def _calibration(rows: Sequence[tuple[str, float, bool]]) -> dict[str, Any]:
    def on(drawn: Sequence[tuple[str, float, bool]]) -> Calibration:
        return calibrate([p for _, p, _ in drawn], [truth for _, _, truth in drawn])

    told = asdict(on(rows)) | {"share_true": sum(truth for _, _, truth in rows) / max(len(rows), 1)}
    told["accuracy_interval"] = _pair(bootstrap(rows, lambda drawn: on(drawn).accuracy, draws=200))
    return told | {"auc_interval": _pair(bootstrap(rows, lambda drawn: on(drawn).auc, draws=200))}


def measure_warnings(
    answerer: Answerer,
    some: Sequence[tuple[Ask, Record]],
    answers: Sequence[str],
    *,
    judge_with: Answerer | None = None,
    yes_no: bool = False,
    news: News = lambda done, of: None,
) -> dict[str, Any]:
    """Return precision and recall of the warnings of ``ask --check``: rejected claims against those that are false.

    Raises:
        SettingError: the numbers of questions and answers differ.
    """
    if len(some) != len(answers):
        raise SettingError(f"{len(answers)} answers for {len(some)} questions; give one for each")
    by = judge_with or answerer
    units: list[list[tuple[bool, bool]]] = []
    for number, ((one, record), answer) in enumerate(zip(some, answers, strict=True), start=1):
        claims = [claim.text for claim in divide(one.question, answer).claims]
        truths = [is_true(claim, record) for claim in claims]
        told = judge(
            by,
            by.see([one.picture.open()]),
            claims,
            request=request_for(by),
            is_open=is_examined(by) and not yes_no,
        )
        units.append(
            [
                (judged.verdict == "rejected", not truth)
                for judged, truth in zip(told, truths, strict=True)
                if truth is not None and judged.verdict != "unread"
            ]
        )
        news(number, len(some))
    rows = [row for unit in units for row in unit]
    return {
        "claims": len(rows),
        "false": sum(is_false for _, is_false in rows),
        "warned": sum(warned for warned, _ in rows),
        "precision": _share(units, lambda warned, is_false: (warned and is_false, warned)),
        "recall": _share(units, lambda warned, is_false: (warned and is_false, is_false)),
    }


def _share(
    units: Sequence[list[tuple[bool, bool]]], count: Callable[[bool, bool], tuple[bool, bool]]
) -> dict[str, Any]:
    def one(drawn: Sequence[list[tuple[bool, bool]]]) -> float:
        parts = [count(*row) for unit in drawn for row in unit]
        whole = sum(of for _, of in parts)
        return sum(hit for hit, _ in parts) / whole if whole else float("nan")

    return {"value": one(units), "interval": _pair(bootstrap(units, one, draws=200))}


def _pair(interval: Interval) -> list[float]:
    return [round(interval.low, 4), round(interval.high, 4)]


def figures_to_json(figures: dict[str, Figure]) -> dict[str, Any]:
    """Return plain values."""
    return {name: {"value": round(one.value, 3), "interval": _pair(one.interval)} for name, one in figures.items()}
