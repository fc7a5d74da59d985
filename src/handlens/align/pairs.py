"""Pairs: answers with scores to pairs of which one is preferred.

Boundary: rows of ``divide.py`` and ``conquer.py`` in, pairs and statistics out; asks nobody. Source: RLAIF-V
(arXiv 2405.17220), section 3.2, and its released code: score = minus the rejected claims, difference of at least 1, at
most 2 pairs for each question, equal texts dropped, then the balance of lengths.
"""

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from handlens.errors import SettingError

Scoring = Literal["claims", "whole"]
"""``claims``: minus the number of rejected claims; ``whole``: the judge's share of yes for the answer as a whole."""


@dataclass(frozen=True, kw_only=True)
class HowToPair:
    """Settings of pairing."""

    scoring: Scoring = "claims"
    difference: float = 1.0
    """Least difference of scores; rejected claims, or with ``whole`` a share of yes."""
    per_question: int = 2
    balance: bool = True
    """Leave out the pairs whose rejected answer is much longer, until both sides are equally long on average."""
    keeps_facts: bool = False
    """Prefer no answer with fewer supported claims than the other: to say less is no way to be right."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.per_question < 1 or self.difference <= 0:
            raise SettingError(
                f"{self.per_question} pairs per question with a difference of {self.difference:g}: both must be above 0"
            )


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One answer and what the judge holds of it."""

    text: str
    score: float
    num_claims: int
    rejected: tuple[str, ...]

    @property
    def num_supported(self) -> int:
        """Claims that the judge holds for true."""
        return self.num_claims - len(self.rejected)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one question; the judge rejects less of ``chosen``."""

    id: str
    question: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    chosen_wrong: tuple[str, ...] = ()
    """Claims of the chosen answer that the judge rejects."""
    rejected_wrong: tuple[str, ...] = ()

    @property
    def ask(self) -> str:
        """The id of the question."""
        return self.id.rpartition("#")[0]

    @property
    def gap(self) -> float:
        """How much longer the rejected answer is, as a share of its words."""
        words = len(self.rejected.split())
        return (words - len(self.chosen.split())) / max(words, 1)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Pairs and how they came about."""

    pairs: tuple[Pair, ...]
    statistics: dict[str, Any]


def make_pairs(
    divided: Iterable[Mapping[str, Any]], judged: Mapping[str, Mapping[str, Any]], how: HowToPair
) -> Pairing:  # fmt: skip
    """Return the pairs of all questions; an answer that could not be scored is counted and never paired."""
    pairs: list[Pair] = []
    left_out: dict[str, int] = {}
    counts = {"questions": 0, "answers": 0, "scored": 0, "equal texts": 0, "questions without a pair": 0}
    scores: list[float] = []
    for row in divided:
        counts["questions"] += 1
        counts["answers"] += len(row["answers"])
        texts = {answer["text"].strip(): answer for answer in row["answers"]}
        counts["equal texts"] += len(row["answers"]) - len(texts)
        scored = []
        for text, answer in texts.items():
            why = _why_not(answer, judged.get(row["id"]))
            if why:
                left_out[why] = left_out.get(why, 0) + 1
            else:
                scored.append(score(text, answer, judged[row["id"]]["claims"], how.scoring))
        counts["scored"] += len(scored)
        scores += [one.score for one in scored]
        found = pairs_of(row["id"], row["question"], scored, how)
        counts["questions without a pair"] += not found
        pairs += found
    kept, threshold = balance_lengths(pairs) if how.balance else (pairs, 1.0)
    statistics = counts | {
        "answers left out": left_out,
        "mean score": sum(scores) / len(scores) if scores else None,
        "pairs before the balance": len(pairs),
        "pairs": len(kept),
        "length threshold": threshold,
        "words before the balance": _words(pairs),
        "words": _words(kept),
        "mean difference": sum(one.chosen_score - one.rejected_score for one in kept) / len(kept) if kept else None,
        "settings": asdict(how),
    }
    return Pairing(pairs=tuple(kept), statistics=statistics)


def score(text: str, answer: Mapping[str, Any], verdicts: Mapping[str, Any], scoring: Scoring) -> Scored:
    """Return the score of one answer all of whose claims were read."""
    claims = [claim["text"] for claim in answer["claims"]]
    wrong = tuple(claim for claim in claims if verdicts[claim]["verdict"] == "rejected")
    if scoring == "claims":
        return Scored(text=text, score=-float(len(wrong)), num_claims=len(claims), rejected=wrong)
    shares = [verdicts[claim]["p_yes"] / (verdicts[claim]["p_yes"] + verdicts[claim]["p_no"]) for claim in claims]
    return Scored(text=text, score=sum(shares) / len(shares), num_claims=len(claims), rejected=wrong)


def _why_not(answer: Mapping[str, Any], judged: Mapping[str, Any] | None) -> str:
    """Return why an answer has no score; '' where it has one."""
    if answer["status"] != "ok":
        return str(answer["status"])
    if judged is None:
        return "not judged"
    if judged["status"] != "ok":
        return f"judge: {judged['status']}"
    told = judged["claims"]
    if any(claim["text"] not in told or told[claim["text"]]["verdict"] == "unread" for claim in answer["claims"]):
        return "unread claim"
    return ""


def pairs_of(ask: str, question: str, scored: Sequence[Scored], how: HowToPair) -> list[Pair]:
    """Return some of the pairs of one question, drawn at random by a seed of the question."""
    ordered = sorted(scored, key=lambda one: (-one.score, one.text))
    every = [
        (better, worse)
        for better, worse in itertools.combinations(ordered, 2)
        if better.score - worse.score >= how.difference - 1e-9
        and (not how.keeps_facts or better.num_supported >= worse.num_supported)
    ]
    drawn = random.Random(f"{how.seed}/pairs/{ask}").sample(every, min(how.per_question, len(every)))
    return [
        Pair(
            id=f"{ask}#{number}",
            question=question,
            chosen=better.text,
            rejected=worse.text,
            chosen_score=better.score,
            rejected_score=worse.score,
            chosen_wrong=better.rejected,
            rejected_wrong=worse.rejected,
        )
        for number, (better, worse) in enumerate(drawn)
    ]


def balance_lengths(pairs: Sequence[Pair]) -> tuple[list[Pair], float]:
    """Return the pairs whose gap is at most a threshold, and that threshold.

    Of 0, 0.02 ... 1 it is the one that leaves the smallest difference of mean lengths; of equals the largest, which
    keeps most pairs.
    """
    if not pairs:
        return [], 1.0
    best, found, threshold = math.inf, list(pairs), 1.0
    for step in range(50, -1, -1):
        kept = [pair for pair in pairs if pair.gap <= step / 50 + 1e-9]
        difference = abs(sum(len(pair.chosen.split()) - len(pair.rejected.split()) for pair in kept))
        mean = difference / len(kept) if kept else math.inf
        if mean < best - 1e-12:
            best, found, threshold = mean, kept, step / 50
    return found, threshold


def _words(pairs: Sequence[Pair]) -> dict[str, float | None]:
    if not pairs:
        return {"chosen": None, "rejected": None}
    chosen = sum(len(pair.chosen.split()) for pair in pairs) / len(pairs)
    return {"chosen": chosen, "rejected": sum(len(pair.rejected.split()) for pair in pairs) / len(pairs)}


def pair_to_json(pair: Pair) -> dict[str, Any]:
    """Return plain values."""
    return asdict(pair)


def pair_from_json(row: Mapping[str, Any]) -> Pair:
    """Return a pair; the opposite of ``pair_to_json``."""
    known: dict[str, Any] = {name: value for name, value in row.items() if name in Pair.__dataclass_fields__}
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return Pair(**plain)
