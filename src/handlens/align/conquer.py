"""Conquer: every claim to a judge, once for each picture, and what came of it on disk.

Boundary: rows of ``divide.py`` in, a probability for each claim out. The judge is a model of the family, an endpoint,
or the truth of generated pictures. Source: RLAIF-V (arXiv 2405.17220), section 3.2.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from handlens.align.asks import Ask
from handlens.align.check import is_examined, request_for
from handlens.align.journal import Journal
from handlens.align.judge import Judgement, judge
from handlens.align.sample import open_policy
from handlens.align.truth import judge_by_truth
from handlens.data.spread import spread_over
from handlens.errors import DataError, HandlensError, ImageError, ModelError

TRUTH = "truth"
"""The name of the judge that knows what generated pictures show."""
WHOLE = "Is this true of the picture: “"


@dataclass(frozen=True)
class JudgeOne:
    """The work on all claims about one picture; travels to other processes."""

    judge: str
    asks: Mapping[str, Ask]
    yes_no: bool = False
    """Ask every claim with yes or no, also where open questions fit."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of a question: claim -> what the judge said; a judge that failed leaves claims unread."""
        one = self.asks[row["id"]]
        asked = {claim["text"]: claim["question"] for answer in row["answers"] for claim in answer["claims"]}
        told: dict[str, Any] = {"id": row["id"], "status": "ok", "note": "", "claims": {}}
        if not asked:
            return told
        try:
            judged = self._judge(one, asked)
        except (DataError, ImageError) as error:
            return told | {"status": "no_picture", "note": str(error)}
        except HandlensError as error:
            return told | {"status": "failed", "note": str(error)}
        if all(one.verdict == "unread" for one in judged):
            told |= {"status": "failed" if self.judge != TRUTH else "ok", "note": judged[0].note}
        return told | {"claims": {one.claim: _to_json(one) for one in judged}}

    def _judge(self, one: Ask, asked: dict[str, str]) -> list[Judgement]:
        if self.judge == TRUTH:
            return self._by_truth(one, asked)
        answerer = open_policy(self.judge)
        seen = answerer.see([one.picture.open()])
        return judge(
            answerer, seen, list(asked), questions=list(asked.values()), request=request_for(answerer),
            is_open=is_examined(answerer) and not self.yes_no,
        )  # fmt: skip

    def _by_truth(self, one: Ask, asked: dict[str, str]) -> list[Judgement]:
        record = one.picture.record()
        if record is None:
            raise DataError(f"nothing is known of the picture of {one.id}; judge with a model: --judge nano")
        judged = []
        for claim, question in asked.items():
            if not question.startswith(WHOLE):
                judged += [replace(one, question=question) for one in judge_by_truth(record, [claim])]
                continue
            # A whole answer is true where every claim of it is.
            from handlens.align.claims import divide

            parts = judge_by_truth(record, [part.text for part in divide("", claim).claims])
            is_unread = any(part.verdict == "unread" for part in parts) or not parts
            is_right = all(part.verdict == "supported" for part in parts)
            judged.append(
                Judgement(
                    claim=claim, question=question, p_yes=float(not is_unread and is_right),
                    p_no=float(not is_unread and not is_right), note="the record does not tell" if is_unread else "",
                )
            )  # fmt: skip
        return judged


def conquer(
    rows: Iterable[dict[str, Any]], asks: Mapping[str, Ask], judge_name: str, journal: Journal, *,
    yes_no: bool = False, engine: str = "local", jobs: int = 1,
    news: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:  # fmt: skip
    """Judge the claims of every question that the journal lacks; return how often each verdict came.

    Raises:
        ModelError: the judge cannot be opened, or it died: it failed at 20 questions one after the other.
    """
    waiting = [row for row in rows if journal.rows.get(row["id"], {}).get("status") not in ("ok", "no_picture")]
    if waiting and judge_name != TRUTH and engine == "local" and jobs == 1:
        open_policy(judge_name)
    failed = 0
    with spread_over(engine, jobs) as apply:
        for done, row in enumerate(apply(JudgeOne(judge_name, asks, yes_no), waiting), start=1):
            journal.add(row)
            failed = failed + 1 if row["status"] == "failed" else 0
            if failed == 20:
                raise ModelError(
                    f"the judge failed at 20 questions one after the other ({row['note']}); run again when it is back"
                )
            news(done, len(waiting))
    return count_verdicts(journal.rows.values())


def count_verdicts(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return questions by status, and claims by verdict."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[f"questions {row['status']}"] = counts.get(f"questions {row['status']}", 0) + 1
        for told in row["claims"].values():
            counts[told["verdict"]] = counts.get(told["verdict"], 0) + 1
    return counts


def _to_json(one: Judgement) -> dict[str, Any]:
    told = {"verdict": one.verdict, "p_yes": round(one.p_yes, 6), "p_no": round(one.p_no, 6), "question": one.question}
    return told | ({"note": one.note} if one.note else {})
