"""Choose the next token: greedy, sampled, or by beam search.

Boundary: numpy only; logits in, token ids and log-probabilities out. Knows no model and no text.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from handlens.core.loops import LoopGuard
from handlens.errors import ModelError, SettingError

Step = Callable[[Sequence[int], Sequence[int]], Float32[np.ndarray, "beams vocab"]]
"""``step(ids, parents)``: beam b continues the earlier beam ``parents[b]`` with ``ids[b]``; logits come back."""


Ending = Literal["stop", "length", "loop"]
"""Why an answer ended: by itself, at ``max_tokens``, or because it went round in a loop."""


@runtime_checkable
class Constraint(Protocol):
    """What an answer may look like, token by token; a state is a place in it."""

    def start(self) -> Any:
        """Return the state before the first token."""
        ...

    def allowed(self, state: Any, left: int) -> Bool[np.ndarray, "vocab"]:
        """Return the tokens after which the answer can still be made whole in ``left - 1`` more tokens.

        Where that cannot be done, only tokens on a shortest way to a whole answer are allowed.
        """
        ...

    def advance(self, state: Any, token_id: int) -> Any:
        """Return the state after an allowed token."""
        ...

    def is_whole(self, state: Any) -> bool:
        """True where the answer may end."""
        ...


@runtime_checkable
class Doubt(Protocol):
    """Logits that can differ a little from those of single steps."""

    def margin(self) -> float:
        """Return the lead, in nats, that the likeliest token needs; 0 where the logits are exact."""
        ...

    def alone(self) -> Float32[np.ndarray, "vocab"]:
        """Return the exact logits of the same place."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer is chosen. The defaults are greedy and repeatable."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 takes the likeliest token; the filters below then have no effect."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens with this share of the probability."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the answer so far less likely; the prompt does not count."""
    num_beams: int = 1
    seed: int = 0
    stop_loops: bool = True
    """End an answer that says the same again and again; see ``core/loops.py``."""
    constraint: Constraint | None = None
    """For example a JSON schema, bound to the tokenizer of the model that answers."""
    watch: Callable[[Float64[np.ndarray, "vocab"]], None] | None = None
    """Called with the model's own log-probabilities before every choice; not in beam search."""

    def __post_init__(self) -> None:
        checks = (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or a positive number"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "a positive number (1 is off)"),
            ("num_beams", self.num_beams >= 1, "at least 1"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        for name, is_good, needed in checks:
            if not is_good:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be {needed}")
        if self.num_beams > 1 and self.temperature > 0:
            raise SettingError(
                f"num_beams {self.num_beams} with temperature {self.temperature}: "
                "beam search does not sample; set one of them back to its default"
            )
        if self.num_beams > 1 and self.constraint is not None:
            raise SettingError(f"num_beams is {self.num_beams}; an answer with a set form needs 1")


def log_softmax(logits: Float[np.ndarray, "... vocab"]) -> Float64[np.ndarray, "... vocab"]:
    """Return natural log-probabilities.

    Raises:
        ModelError: a logit is not a number, is +inf, or every token is forbidden.
    """
    wide = np.asarray(logits, dtype=np.float64)
    top = wide.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        raise ModelError(_no_choice(bool(np.isneginf(top).any())))
    shifted = wide - top
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_total(logits: Float[np.ndarray, "vocab"]) -> float:
    """Return what is subtracted from a logit to get its log-probability; cheaper than all of them.

    Raises:
        ModelError: a logit is not a number, is +inf, or every token is forbidden.

    >>> round(log_total(np.zeros(4)), 4)
    1.3863
    """
    top = float(logits.max())
    if not math.isfinite(top):
        raise ModelError(_no_choice(top == -math.inf))
    # A few parts in ten million: 32 bits take a tenth of the time where the vocabulary is large.
    return top + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))


def _no_choice(all_forbidden: bool) -> str:
    what = "no token that may be chosen" if all_forbidden else "logits that are not numbers (NaN or inf)"
    return f"the language model returned {what}; its weights are damaged or overflow this precision"


def penalise(scores: Float64[np.ndarray, "vocab"], earlier: Sequence[int], penalty: float) -> None:
    """Make earlier tokens less likely, in place: a positive score is divided, a negative one multiplied."""
    if penalty == 1.0 or not earlier:
        return
    seen = np.unique(np.asarray(earlier))
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)


def keep_likely(
    scores: Float64[np.ndarray, "vocab"], *, top_k: int, top_p: float
) -> tuple[np.ndarray, Float64[np.ndarray, "kept"]]:
    """Return the kept ids, likeliest first, and their probabilities, which sum to 1.

    ``top_k`` acts before ``top_p``; of equal tokens the lower id comes first.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[: top_k or None]
    probabilities = np.exp(log_softmax(scores[order]))
    if top_p < 1.0:
        num_kept = int(np.searchsorted(np.cumsum(probabilities), top_p)) + 1
        order, probabilities = order[:num_kept], probabilities[:num_kept]
    return order, probabilities / probabilities.sum()


def generate(
    first_logits: Float32[np.ndarray, "vocab"],
    step: Step,
    stops: Collection[int],
    sampling: Sampling,
    forbidden: Collection[int] = (),
    doubt: Doubt | None = None,
) -> Iterator[tuple[int, float]]:
    """Yield ids with their log-probabilities; the stop token ends the answer and is not yielded.

    A log-probability is the model's own, before penalty, temperature and filters. Beam search yields
    its tokens at the end and watches no loops. ``forbidden`` ids are never chosen. Where a constraint
    leaves an answer unfinished when a loop is found, the shortest way to its end follows. Where ``doubt``
    is given, a greedy choice with too small a lead is made again from exact logits.
    """
    banned = np.asarray(sorted(forbidden), dtype=np.int64)
    if sampling.num_beams > 1:
        yield from _search_beams(first_logits, step, frozenset(stops), sampling, banned)
        return
    rng = np.random.default_rng(sampling.seed)
    guard = LoopGuard()
    form = _Form(sampling.constraint, stops) if sampling.constraint else None
    answer: list[int] = []
    logits, is_looping = first_logits, False
    while True:
        if sampling.watch:
            sampling.watch(log_softmax(logits))
        left = 0 if is_looping else sampling.max_tokens - len(answer)
        scores = _weigh(logits, answer, sampling, banned, form, left)
        if doubt and (margin := doubt.margin()) and np.count_nonzero(scores > scores.max() - margin) > 1:
            logits = doubt.alone()
            scores = _weigh(logits, answer, sampling, banned, form, left)
        total = log_total(logits)
        chosen = _pick(scores, sampling, rng)
        if chosen in stops:
            return
        yield chosen, float(logits[chosen]) - total
        answer.append(chosen)
        is_looping |= sampling.stop_loops and guard.push(chosen)
        if form:
            form.advance(chosen)
        if len(answer) == sampling.max_tokens or (is_looping and (form is None or form.is_whole)):
            return
        logits = step([chosen], [0])[0]


def why_ended(ids: Sequence[int], sampling: Sampling) -> Ending:
    """Return why ``generate`` ended the answer ``ids``.

    >>> why_ended([5, 6], Sampling(max_tokens=2)), why_ended([5], Sampling(max_tokens=2))
    ('length', 'stop')
    """
    guard = LoopGuard()
    if sampling.stop_loops and sampling.num_beams == 1 and any(map(guard.push, ids)):
        return "loop"
    return "length" if len(ids) >= sampling.max_tokens else "stop"


def _weigh(
    logits: np.ndarray, answer: Sequence[int], sampling: Sampling, banned: np.ndarray, form: "_Form | None", left: int
) -> Float64[np.ndarray, "vocab"]:
    """Return logits without what may not be said, after the penalty; ``left`` tokens may follow."""
    scores = np.array(logits, dtype=np.float64)
    scores[banned] = -np.inf
    penalise(scores, answer, sampling.repetition_penalty)
    if form:
        form.mask(scores, left=left)
    return scores


class _Form:
    """A constraint and the place in it where an answer is."""

    def __init__(self, constraint: Constraint, stops: Collection[int]) -> None:
        self._constraint, self._stops = constraint, sorted(stops)
        self._state = constraint.start()

    @property
    def is_whole(self) -> bool:
        return self._constraint.is_whole(self._state)

    def mask(self, scores: Float64[np.ndarray, "vocab"], *, left: int) -> None:
        """Forbid, in place, what does not fit; stop tokens fit where the answer is whole."""
        allowed = self._constraint.allowed(self._state, left)
        stop_scores = scores[self._stops]
        scores[: len(allowed)][~allowed] = -np.inf
        scores[len(allowed) :] = -np.inf
        scores[self._stops] = stop_scores if self.is_whole else -np.inf

    def advance(self, token_id: int) -> None:
        self._state = self._constraint.advance(self._state, token_id)


def _pick(scores: Float64[np.ndarray, "vocab"], sampling: Sampling, rng: np.random.Generator) -> int:
    if sampling.temperature == 0:
        chosen = int(scores.argmax())
        if not math.isfinite(scores[chosen]):  # no candidate, or no number
            raise ModelError(_no_choice(bool(np.isneginf(scores[chosen]))))
        return chosen
    # Shifting first keeps a tiny temperature from overflowing.
    scaled = (scores - scores.max()) / sampling.temperature
    ids, probabilities = keep_likely(scaled, top_k=sampling.top_k, top_p=sampling.top_p)
    # One uniform number against the cumulative sum: the same seed gives the same answer in every numpy.
    place = int(np.searchsorted(np.cumsum(probabilities), rng.random(), side="right"))
    return int(ids[min(place, len(ids) - 1)])


@dataclass(frozen=True)
class _Beam:
    tokens: tuple[tuple[int, float], ...] = ()
    """Ids with the model's own log-probabilities."""
    score: float = 0.0
    """Sum of log-probabilities after the penalty."""

    @property
    def ids(self) -> list[int]:
        return [token for token, _ in self.tokens]


def _search_beams(
    first_logits: np.ndarray, step: Step, stops: frozenset[int], sampling: Sampling, banned: np.ndarray
) -> Iterator[tuple[int, float]]:
    """Yield the finished beam with the best mean log-probability; its length counts the stop token.

    Source: the beam search of transformers with ``length_penalty=1.0, early_stopping=False``, which the
    released ``chat`` calls: the penalty acts on log-probabilities, only the best ``num_beams`` candidates
    may finish, and the search ends when the best open beam, at its present length, cannot beat the worst
    of ``num_beams`` finished ones.
    """
    width = sampling.num_beams
    open_beams, finished = [_Beam()], []
    logits = np.asarray(first_logits)[None]
    for length in range(1, sampling.max_tokens + 1):
        candidates = _best_continuations(logits, open_beams, sampling, banned, max(2, 1 + len(stops)) * width)
        open_next: list[tuple[int, _Beam]] = []
        for rank, (parent, beam) in enumerate(candidates):
            if beam.tokens[-1][0] in stops or length == sampling.max_tokens:
                if rank < width:
                    finished.append((beam.score / length, beam))
            elif len(open_next) < width:
                open_next.append((parent, beam))
        finished = sorted(finished, key=lambda pair: -pair[0])[:width]
        if not open_next or (len(finished) == width and open_next[0][1].score / length <= finished[-1][0]):
            break
        open_beams = [beam for _, beam in open_next]
        logits = step([beam.ids[-1] for beam in open_beams], [parent for parent, _ in open_next])
    tokens = finished[0][1].tokens
    yield from tokens[:-1] if tokens[-1][0] in stops else tokens


def _best_continuations(
    logits: np.ndarray, beams: Sequence[_Beam], sampling: Sampling, banned: np.ndarray, count: int
) -> list[tuple[int, _Beam]]:
    """Return up to ``count`` continuations as (parent, beam), best first."""
    logprobs = log_softmax(logits)
    scores = logprobs.copy()
    scores[:, banned] = -np.inf
    for row, beam in zip(scores, beams, strict=True):
        penalise(row, beam.ids, sampling.repetition_penalty)
        row += beam.score
    log_softmax(scores.max(axis=-1))  # refuses a step in which no beam has a candidate
    vocab = scores.shape[1]
    best = np.argsort(-scores, axis=None, kind="stable")[:count]
    return [
        (
            int(place) // vocab,
            _Beam(
                (*beams[place // vocab].tokens, (int(place % vocab), float(logprobs.flat[place]))),
                float(scores.flat[place]),
            ),
        )
        for place in best
        if np.isfinite(scores.flat[place])
    ]
