"""Decide whether a claim is true: a yes/no question to any answerer, and P(yes) against P(no).

Boundary: sees answerers through the protocol alone. ``calibrate`` compares verdicts with what is known to be true.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from handlens.align.examine import examine
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
    is_open: bool = False


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
    is_open: bool = False,
) -> list[Judgement]:
    """Return one judgement per claim, in order; a judge that fails leaves the claim unread and says why.

    ``is_open`` asks which colour, which shape, where and how many (``examine.py``) wherever a claim allows it, and yes
    or no elsewhere.

    ``request`` is added to every question; ``find_slices`` also asks about every slice alone, and names the one that
    gives the largest share of yes. ``questions`` are used as they are; without them rules make one of every claim.

    Raises:
        SettingError: no surface form of yes, or of no, is given.
    """
    if not yes or not no:
        raise SettingError("a judge needs at least one surface form of yes and one of no, for example yes and no")
    forms, judged = _Forms(tuple(yes), tuple(no), request, is_open), []
    asking = _Remembering(answerer)
    asked = questions or [question_of(claim) for claim in claims]
    for claim, question in zip(claims, asked, strict=True):
        try:
            one = _ask(asking, seen, claim, question, forms)
            if find_slices and one.verdict != "unread":
                one = replace(one, slice=_find_slice(asking, seen, claim, question, forms))
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


class _Remembering:
    """An answerer that is asked each question about each picture once: claims about one thing share theirs."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self.told: dict[tuple[int, str, tuple[str, ...]], list[float]] = {}
        self.parts: dict[tuple[int, int, int], Seen] = {}

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        """Return the log-probabilities of an earlier time, or ask; ``seen`` lives as long as this does."""
        key = (id(seen), str(chat), tuple(continuations))
        if key not in self.told:
            self.told[key] = self.answerer.score(chat, seen, continuations)
        return self.told[key]

    def only_slice(self, seen: Seen, picture: int, number: int) -> Seen:
        """Return one slice as if it were the whole picture, the same object every time."""
        key = (id(seen), picture, number)
        if key not in self.parts:
            self.parts[key] = only_slice(seen, picture, number)
        return self.parts[key]


def _ask(asking: _Remembering, seen: Seen, claim: str, question: str, forms: _Forms) -> Judgement:
    """Return the judgement of one claim: by open questions where they are wanted and fit, else by yes and no."""
    examination = examine(claim) if forms.is_open else None
    if examination is not None:
        told = [
            (one, _told(asking, seen, ask(one.question, len(seen.pictures)), one.choices))
            for one in examination.questions
        ]
        if all(sum(probabilities) > 0 for _, probabilities in told):
            believed = examination.believed([one.ratio(probabilities) for one, probabilities in told])
            asked = " ".join(one.question for one in examination.questions)
            return Judgement(claim=claim, question=asked, p_yes=believed, p_no=1 - believed)
    chat = ask(question + forms.request, len(seen.pictures))
    both = _told(asking, seen, chat, [*forms.yes, *forms.no])
    p_yes, p_no = math.fsum(both[: len(forms.yes)]), math.fsum(both[len(forms.yes) :])
    note = "" if p_yes + p_no > 0 else "the judge gives neither yes nor no a probability"
    return Judgement(claim=claim, question=question, p_yes=min(p_yes, 1.0), p_no=min(p_no, 1.0), note=note)


def _told(asking: _Remembering, seen: Seen, chat: Chat, forms: Sequence[str]) -> list[float]:
    """Return the probability of each form; a judge that fails is asked again."""
    for attempt in range(TRIES):
        try:
            return _probabilities(asking, seen, chat, forms)
        except ModelError:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def _probabilities(asking: _Remembering, seen: Seen, chat: Chat, forms: Sequence[str]) -> list[float]:
    """Return the probability of each form; one that an endpoint does not tell counts as zero."""
    try:
        scores = asking.score(chat, seen, forms)
    except SettingError:
        scores = [_score_one(asking, seen, chat, form) for form in forms]
        if all(score == -math.inf for score in scores):
            raise
    if any(math.isnan(score) for score in scores):
        raise ModelError("the judge answered with a probability that is not a number; its weights are damaged")
    return [math.exp(min(score, 0.0)) for score in scores]


def _score_one(asking: _Remembering, seen: Seen, chat: Chat, form: str) -> float:
    try:
        return asking.score(chat, seen, [form])[0]
    except SettingError:
        return -math.inf


def _find_slice(asking: _Remembering, seen: Seen, claim: str, question: str, forms: _Forms) -> Sliced | None:
    """Return the slice that alone gives the largest share of yes; the first of equals."""
    best, found = -1.0, None
    for picture, one in enumerate(seen.pictures):
        if one.visual_tokens is None:
            return None
        for number in range(one.plan.num_slices):
            share = _ask(asking, asking.only_slice(seen, picture, number), claim, question, forms).probability
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
