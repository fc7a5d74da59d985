"""Decide whether a claim is true: a yes/no question to any answerer, and P(yes) against P(no).

Boundary: sees answerers through the protocol alone. ``calibrate`` compares verdicts with what is known to be true.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from handlens.answerer import Answerer, Seen
from handlens.core.chat import Chat, ask
from handlens.core.slicing import SlicePlan
from handlens.errors import HandlensError, ModelError, SettingError

Verdict = Literal["supported", "rejected", "unread"]
"""unread: no probability of yes or no could be had; it counts neither for the answer nor against it."""

YES: tuple[str, ...] = ("yes", "Yes")
NO: tuple[str, ...] = ("no", "No")
"""The surface forms whose probabilities are added, as in RLAIF-V (arXiv 2405.17220)."""
REQUEST = " Please answer yes or no."
"""Follows the question where a model was not trained to answer such questions with one word."""
TRIES = 3
_OPENS = re.compile(
    r"^(?P<what>[^“\"]+?)\s+(?P<be>is|are|was|were|has|have|can|does|do|did|will)\s+(?P<rest>.+)$", re.DOTALL
)
_TEXT = re.compile(r"^The picture shows (?P<rest>.+)$", re.DOTALL)
_ANSWER = re.compile(r"^The answer to “(?P<question>.+)” is “(?P<answer>.+)”$", re.DOTALL)
_NAMES = frozenset("There This That These Those The A An It He She They Its His Her Their In On At".split())


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """A slice of a picture: which picture, which slice of it (0 is the overview), and its place in the grid."""

    picture: int
    slice: int
    row: int | None = None
    column: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a judge said about one claim."""

    claim: str
    question: str
    p_yes: float = 0.0
    """Probability of the next words yes, summed over their forms."""
    p_no: float = 0.0
    slice: Sliced | None = None
    """The slice that alone gives the largest share of yes; None where it was not looked for or cannot be."""
    note: str = ""
    """Why the claim is unread."""

    @property
    def verdict(self) -> Verdict:
        """Supported where yes is likelier than no."""
        if self.p_yes + self.p_no <= 0:
            return "unread"
        return "supported" if self.p_yes > self.p_no else "rejected"

    @property
    def probability(self) -> float | None:
        """Share of yes in yes and no together; None where the claim is unread."""
        both = self.p_yes + self.p_no
        return self.p_yes / both if both > 0 else None


@dataclass(frozen=True)
class _Forms:
    yes: tuple[str, ...]
    no: tuple[str, ...]
    request: str


def question_of(claim: str) -> str:
    """Return the claim as a yes/no question; tense and negation stay.

    >>> question_of("There is no red circle."), question_of("The total is €15.00.")
    ('Is there no red circle?', 'Is the total €15.00?')
    """
    bare = claim.strip().rstrip(".")
    if match := _ANSWER.match(bare):
        return f"Is “{match['answer']}” the answer to “{match['question']}”?"
    if match := _TEXT.match(bare):
        return f"Does the picture show {match['rest']}?"
    if (match := _OPENS.match(bare)) and len(match["what"].split()) <= 12:
        what = match["what"]
        if what.split()[0] in _NAMES:
            what = what[0].lower() + what[1:]
        return f"{match['be'].capitalize()} {what} {match['rest']}?"
    return f"Is this true of the picture: “{bare}”?"


def judge(
    answerer: Answerer,
    seen: Seen,
    claims: Sequence[str],
    *,
    yes: Sequence[str] = YES,
    no: Sequence[str] = NO,
    request: str = "",
    find_slices: bool = False,
    questions: Sequence[str] | None = None,
) -> list[Judgement]:
    """Return one judgement per claim, in order; a judge that fails leaves the claim unread and says why.

    ``request`` is added to every question; ``find_slices`` also asks about every slice alone, and names the one that
    gives the largest share of yes. ``questions`` are used as they are; without them rules make one of every claim.

    Raises:
        SettingError: no surface form of yes, or of no, is given.
    """
    if not yes or not no:
        raise SettingError("a judge needs at least one surface form of yes and one of no, for example yes and no")
    forms, judged = _Forms(tuple(yes), tuple(no), request), []
    asked = questions or [question_of(claim) for claim in claims]
    for claim, question in zip(claims, asked, strict=True):
        try:
            one = _ask(answerer, seen, claim, question, forms)
            if find_slices and one.verdict != "unread":
                one = replace(one, slice=_find_slice(answerer, seen, claim, question, forms))
        except HandlensError as error:
            one = Judgement(claim=claim, question=question, note=str(error))
        judged.append(one)
    return judged


def only_slice(seen: Seen, picture: int, number: int) -> Seen:
    """Return one slice of one picture as if it were the whole picture; nothing is encoded again.

    Raises:
        SettingError: the answerer keeps no visual tokens, as an endpoint does not.
    """
    one = seen.pictures[picture]
    if one.visual_tokens is None:
        raise SettingError(
            "an endpoint sees pictures itself; slices can be asked about one by one on a local model only"
        )
    size = one.plan.cell if number and one.plan.cell else one.plan.overview
    plan = SlicePlan(width=size[0], height=size[1], grid=None, overview=size, refined=None, patch_px=one.plan.patch_px)
    return Seen(pictures=(replace(one, plan=plan, visual_tokens=one.visual_tokens[number : number + 1]),))


def _ask(answerer: Answerer, seen: Seen, claim: str, question: str, forms: _Forms) -> Judgement:
    chat = ask(question + forms.request, len(seen.pictures))
    for attempt in range(TRIES):
        try:
            told = _probabilities(answerer, seen, chat, [*forms.yes, *forms.no])
            break
        except ModelError:
            if attempt == TRIES - 1:
                raise
    p_yes, p_no = math.fsum(told[: len(forms.yes)]), math.fsum(told[len(forms.yes) :])
    note = "" if p_yes + p_no > 0 else "the judge gives neither yes nor no a probability"
    return Judgement(claim=claim, question=question, p_yes=min(p_yes, 1.0), p_no=min(p_no, 1.0), note=note)


def _probabilities(answerer: Answerer, seen: Seen, chat: Chat, forms: Sequence[str]) -> list[float]:
    """Return the probability of each form; one that an endpoint does not tell counts as zero."""
    try:
        scores = answerer.score(chat, seen, forms)
    except SettingError:
        scores = [_score_one(answerer, seen, chat, form) for form in forms]
        if all(score == -math.inf for score in scores):
            raise
    if any(math.isnan(score) for score in scores):
        raise ModelError("the judge answered with a probability that is not a number; its weights are damaged")
    return [math.exp(min(score, 0.0)) for score in scores]


def _score_one(answerer: Answerer, seen: Seen, chat: Chat, form: str) -> float:
    try:
        return answerer.score(chat, seen, [form])[0]
    except SettingError:
        return -math.inf


def _find_slice(answerer: Answerer, seen: Seen, claim: str, question: str, forms: _Forms) -> Sliced | None:
    """Return the slice that alone gives the largest share of yes; the first of equals."""
    best, found = -1.0, None
    for picture, one in enumerate(seen.pictures):
        if one.visual_tokens is None:
            return None
        for number in range(one.plan.num_slices):
            share = _ask(answerer, only_slice(seen, picture, number), claim, question, forms).probability
            if share is not None and share > best:
                best, found = share, _place(picture, number, one.plan)
    return found


def _place(picture: int, number: int, plan: SlicePlan) -> Sliced:
    if number == 0 or plan.grid is None:
        return Sliced(picture=picture, slice=number)
    row, column = divmod(number - 1, plan.grid.columns)
    return Sliced(picture=picture, slice=number, row=row, column=column)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities of yes agree with the truth. Values in 0 to 1; NaN where they are undefined."""

    num: int
    accuracy: float
    auc: float
    """Chance that a true claim has a larger probability than a false one; 0.5 knows nothing."""
    calibration_error: float
    """Mean gap between probability and share of true claims, over ten equal bins, weighted by their claims."""


def calibrate(probabilities: Sequence[float], truths: Sequence[bool]) -> Calibration:
    """Compare a judge's probabilities with the truth; unread claims have to be left out.

    Raises:
        SettingError: the lengths differ, or a probability is not in 0 to 1.
    """
    if len(probabilities) != len(truths):
        raise SettingError(f"{len(probabilities)} probabilities for {len(truths)} truths; give one for each")
    wrong = next((p for p in probabilities if not 0 <= p <= 1), None)
    if wrong is not None:
        raise SettingError(f"a probability is {wrong}; it must be between 0 and 1")
    return Calibration(
        num=len(truths),
        accuracy=accuracy(probabilities, truths),
        auc=area_under_curve(probabilities, truths),
        calibration_error=calibration_error(probabilities, truths),
    )


def accuracy(probabilities: Sequence[float], truths: Sequence[bool]) -> float:
    """Return the share of claims whose verdict is right; above one half means yes.

    >>> accuracy([0.9, 0.4, 0.5], [True, True, False])
    0.6666666666666666
    """
    if not truths:
        return math.nan
    return sum((p > 0.5) == truth for p, truth in zip(probabilities, truths, strict=True)) / len(truths)


def area_under_curve(probabilities: Sequence[float], truths: Sequence[bool]) -> float:
    """Return the area under the receiver's curve; equals count half, NaN where only one truth occurs.

    >>> area_under_curve([0.9, 0.4, 0.4], [True, True, False])
    0.75
    """
    ordered = sorted(zip(probabilities, truths, strict=True), key=lambda pair: pair[0])
    num_true = sum(truths)
    num_false = len(truths) - num_true
    if not num_true or not num_false:
        return math.nan
    ranks, place = 0.0, 0
    while place < len(ordered):
        end = place
        while end < len(ordered) and ordered[end][0] == ordered[place][0]:
            end += 1
        # Equal probabilities share the mean of their ranks, which count from 1.
        ranks += (place + 1 + end) / 2 * sum(truth for _, truth in ordered[place:end])
        place = end
    return (ranks - num_true * (num_true + 1) / 2) / (num_true * num_false)


def calibration_error(probabilities: Sequence[float], truths: Sequence[bool], *, num_bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width (arXiv 1706.04599, equation 3).

    >>> round(calibration_error([0.95, 0.95], [True, False]), 3)
    0.45
    """
    if not truths:
        return math.nan
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, truth in zip(probabilities, truths, strict=True):
        bins.setdefault(min(int(p * num_bins), num_bins - 1), []).append((p, truth))
    gaps = [abs(sum(p for p, _ in rows) - sum(truth for _, truth in rows)) for rows in bins.values()]
    return math.fsum(gaps) / len(truths)
