"""An answer with what can be said for and against it: divided into claims, each judged on the same picture.

Boundary: an answerer, what it saw, a question and an answer in; plain values out. Command line and server show them.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

from handlens.align.claims import Division, divide
from handlens.align.judge import REQUEST, Judgement, Sliced, judge
from handlens.answerer import Answerer, Seen


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The claims of one answer and the judge's word on each."""

    answer: str
    division: Division
    judgements: tuple[Judgement, ...]
    """One for each claim of the division, in its order."""
    seconds: float
    """Wall time of dividing and judging."""

    @property
    def kept(self) -> str:
        """The answer without the parts of which a claim is rejected; empty where nothing is left."""
        claims = zip(self.division.claims, self.judgements, strict=True)
        return without(self.answer, {(claim.start, claim.end) for claim, one in claims if one.verdict == "rejected"})

    @property
    def num_rejected(self) -> int:
        """Claims that the judge holds for false; unread ones are not among them."""
        return sum(one.verdict == "rejected" for one in self.judgements)

    @property
    def num_unread(self) -> int:
        """Claims that nobody could judge."""
        return sum(one.verdict == "unread" for one in self.judgements)


def check(
    answerer: Answerer, seen: Seen, question: str, answer: str, *, judge_with: Answerer | None = None,
    judge_seen: Seen | None = None,
) -> Checked:  # fmt: skip
    """Return the answer's claims with verdict, probability and slice.

    The model that answered judges itself unless another is given, with the pictures as that one saw them.
    """
    begin = time.perf_counter()
    division = divide(question, answer)
    by = judge_with or answerer
    claims = [claim.text for claim in division.claims]
    judgements = judge(
        by, judge_seen or seen, claims, request=request_for(by), find_slices=True, is_open=is_examined(by)
    )
    return Checked(answer=answer, division=division, judgements=tuple(judgements), seconds=time.perf_counter() - begin)


def without(answer: str, spans: set[tuple[int, int]]) -> str:
    """Return an answer without some of its parts, and without the joints that held them.

    >>> without("A red ring, a blue star and a heart.", {(0, 10)})
    'A blue star and a heart.'
    """
    if not spans:
        return answer.strip()
    parts, start = [], 0
    for first, last in sorted(spans):
        parts.append(answer[start:first])
        start = last
    text = "".join([*parts, answer[start:]])
    text = re.sub(r"(?:\s*,|\s+and\b)+(?=\s*(?:[,.;]|and\b|$))", "", text)
    text = re.sub(r"(^|[.!?]\s)\s*(?:[,.;!?]+\s*|and\s+)+", r"\1", text)
    text = re.sub(r"[^\S\n]+(?=[,.;]|$)", "", re.sub(r"[^\S\n]+", " ", text)).strip()
    return text[:1].upper() + text[1:] if answer[:1].isupper() else text


def request_for(answerer: Answerer) -> str:
    """Return what is added to a question; nano learned yes/no questions without a request."""
    return "" if answerer.info.family == "nano" else REQUEST


def is_examined(answerer: Answerer) -> bool:
    """True for a judge that answers open questions about scenes and cannot tell yes from no: nano."""
    return answerer.info.family == "nano"


def checked_to_json(checked: Checked) -> dict[str, Any]:
    """Return ``claims`` and ``check`` as plain values; a probability or slice that is not known is null."""
    division = checked.division
    return {
        "claims": [
            {
                "text": one.claim,
                "verdict": one.verdict,
                "probability": None if one.probability is None else round(one.probability, 4),
                "slice": _slice_to_json(one.slice),
                "question": one.question,
                **({"note": one.note} if one.note else {}),
            }
            for one in checked.judgements
        ],
        "check": {
            "status": division.status,
            "kept": checked.kept,
            "rejected": checked.num_rejected,
            "unread": checked.num_unread,
            "not_claims": list(division.dropped),
            "lost": list(division.lost),
            "added": list(division.added),
            "seconds": round(checked.seconds, 4),
        },
    }


def _slice_to_json(where: Sliced | None) -> dict[str, int | None] | None:
    if where is None:
        return None
    return {"picture": where.picture, "slice": where.slice, "row": where.row, "column": where.column}


def describe_slice(where: Sliced | None, *, num_pictures: int = 1) -> str:
    """Return a slice in words; rows and columns count from 1.

    >>> describe_slice(Sliced(picture=0, slice=3, row=1, column=0))
    'slice 3 (row 2, column 1)'
    """
    if where is None:
        return "no slice"
    place = (
        "overview"
        if where.row is None
        else f"slice {where.slice} (row {where.row + 1}, column {(where.column or 0) + 1})"
    )
    return f"picture {where.picture + 1}, {place}" if num_pictures > 1 else place


def describe(checked: Checked, *, num_pictures: int = 1) -> list[str]:
    """Return the lines that are shown below an answer: one per claim, then what is not among them."""
    lines = []
    for one in checked.judgements:
        if one.probability is None:
            lines.append(f"  ?         {one.claim}  ({one.note})")
            continue
        mark = "supported" if one.verdict == "supported" else "REJECTED "
        where = describe_slice(one.slice, num_pictures=num_pictures)
        lines.append(f"  {mark} {one.probability:4.0%}  {one.claim}  [{where}]")
    division = checked.division
    if division.status != "ok":
        lines.append(f"  nothing to check: {division.note}")
    if division.dropped:
        lines.append(f"  not checked, no claims: {' | '.join(division.dropped)}")
    if division.lost:
        lines.append(f"  not checked, in no claim: {', '.join(division.lost)}")
    return lines
