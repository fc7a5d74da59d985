"""Sample: several answers of the policy to every question, the picture encoded once, every seed written down.

Boundary: sees answerers through the protocol; a bundle or torch model computes the answers to one question side by
side. Source: RLAIF-V (arXiv 2405.17220), section 3.1.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from handlens.align.asks import Ask, seed_of
from handlens.align.journal import Journal
from handlens.answerer import Answerer, Seen, Token
from handlens.core.chat import Chat
from handlens.core.chat import ask as ask_once
from handlens.core.sampling import Sampling, generate
from handlens.core.tokenizer import TextStream
from handlens.data.spread import spread_over
from handlens.engine.answerer import Lens
from handlens.engine.room import Room
from handlens.errors import DataError, HandlensError, ImageError, ModelError, SettingError

News = Callable[[int, int], None]
TOGETHER = 8
"""Questions that a torch model answers at once."""
TRIES = 3
"""Times that an answerer is asked before a question counts as failed."""


@dataclass(frozen=True, kw_only=True)
class HowToSample:
    """Settings of sampling."""

    num_answers: int = 10
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 1

    def __post_init__(self) -> None:
        if self.num_answers < 2:
            raise SettingError(f"{self.num_answers} answer per question cannot be compared; ask for at least 2")
        if self.temperature <= 0:
            raise SettingError(f"temperature is {self.temperature:g}; answers would all be the same; give 0.7 or so")

    def samplings(self, ask: str) -> list[Sampling]:
        """Return how each answer to a question is drawn; the seed depends on question and number alone."""
        return [
            Sampling(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=seed_of("sample", self.seed, ask, number),
            )
            for number in range(self.num_answers)
        ]


def sample(
    asks: Iterable[Ask],
    model: str,
    how: HowToSample,
    journal: Journal,
    *,
    engine: str = "local",
    jobs: int = 1,
    news: News = lambda done, of: None,
) -> dict[str, int]:
    """Answer every question that the journal lacks; return how many rows have each status.

    ``model`` is a name, a folder or ``http://host/v1#model``; it is opened where the work is done, so ``engine`` may
    be ``ray``. A question that fails is written down as failed, with the reason; the next run asks it again.

    Raises:
        ModelError: the model cannot be opened, or an endpoint died: every question failed.
    """
    waiting = [one for one in asks if journal.rows.get(one.id, {}).get("status") not in ("ok", "no_picture")]
    if waiting and model != RULES and engine == "local" and jobs == 1:
        open_policy(model)  # a wrong name is an error at once, not a failure of every question
    work = SampleOne(model, how)
    failed = 0
    with spread_over(engine, jobs) as apply:
        rows = apply(work, waiting)
        if waiting and model != RULES and engine == "local" and jobs == 1:
            rows = sample_groups(open_policy(model), waiting, how)
        for done, row in enumerate(rows, start=1):
            journal.add(row)
            failed = failed + 1 if row["status"] == "failed" else 0
            if failed == 20:
                raise ModelError(f"20 questions failed one after the other ({row['note']}); run again when it is back")
            news(done, len(waiting))
    return count_statuses(journal.rows.values())


@dataclass(frozen=True)
class SampleOne:
    """The work on one question; travels to other processes."""

    model: str
    how: HowToSample

    def __call__(self, one: Ask) -> dict[str, Any]:
        """Return the row of a question."""
        if self.model == RULES:
            return change_words(one, self.how)
        return sample_one(open_policy(self.model), one, self.how)


RULES = "rules"
"""The name of the sampler that changes words of true answers: off-policy answers that need no second model."""
_SHARE = 0.3


def change_words(one: Ask, how: HowToSample) -> dict[str, Any]:
    """Return a row whose answers are the true one with some colours, shapes and sizes changed at random."""
    answers = []
    for sampling in how.samplings(one.id):
        rng = random.Random(sampling.seed)
        words = re.split(r"(\W+)", one.reference)
        for place, word in enumerate(words):
            others = next((group for group in _GROUPS if word in group), ())
            if others and rng.random() < _SHARE:
                words[place] = rng.choice([other for other in others if other != word])
        answers.append({"text": "".join(words), "seed": sampling.seed, "tokens": len(words), "logprob": None})
    status, note = ("ok", "") if one.reference else ("failed", "the question has no true answer to change")
    return {
        "id": one.id, "question": one.question, "answers": answers if one.reference else [], "status": status,
        "note": note,
    }  # fmt: skip


_GROUPS = (
    tuple("red green blue yellow orange purple black white brown pink gray".split()),
    tuple("circle square triangle star heart diamond cross ring".split()),
    ("small", "large"),
)


@cache
def open_policy(model: str) -> Answerer:
    """Return the answerer of a name, held open in this process.

    Raises:
        ModelError: there is none, or the endpoint cannot be reached.
    """
    from handlens.eval.session import open_model

    opened = open_model(model).model
    return getattr(opened, "answerer", opened)


def sample_one(answerer: Answerer, one: Ask, how: HowToSample) -> dict[str, Any]:
    """Return a row: the answers to one question with their seeds, or why there are none."""
    row = _row(one)
    try:
        seen = answerer.see([one.picture.open()])
    except (DataError, ImageError) as error:
        return row | {"status": "no_picture", "note": str(error)}
    except HandlensError as error:
        return row | {"status": "failed", "note": str(error)}
    samplings = how.samplings(one.id)
    try:
        answers = answer_all(answerer, ask_once(one.question, 1), seen, samplings)
    except HandlensError as error:
        return row | {"status": "failed", "note": str(error)}
    return row | {"answers": _answers(answers, samplings)}


def sample_groups(answerer: Answerer, asks: Sequence[Ask], how: HowToSample) -> Iterator[dict[str, Any]]:
    """Yield the rows of questions in order; a torch model answers ``TOGETHER`` of them at a time."""
    model = torch_model(answerer)
    if model is None:
        yield from (sample_one(answerer, one, how) for one in asks)
        return
    from handlens.align.together import answer_together

    for start in range(0, len(asks), TOGETHER):
        group = asks[start : start + TOGETHER]
        try:
            asked = [
                (ask_once(one.question, 1), answerer.see([one.picture.open()]), how.samplings(one.id)) for one in group
            ]
            answers = answer_together(cast(Lens, answerer), model, asked)
        except HandlensError:  # one of them cannot be asked; which one is told by asking them alone
            yield from (sample_one(answerer, one, how) for one in group)
            continue
        for one, (_, _, samplings), said in zip(group, asked, answers, strict=True):
            yield _row(one) | {"answers": _answers([tokens_of(answerer, part) for part in said], samplings)}


def torch_model(answerer: Answerer) -> Any:
    """Return the torch model behind an answerer whose answers can be computed together; None where there is none."""
    if not isinstance(answerer, Lens) or answerer.info.engine != "torch":
        return None
    from handlens.align.together import model_of

    return model_of(answerer)


def _row(one: Ask) -> dict[str, Any]:
    return {"id": one.id, "question": one.question, "answers": [], "status": "ok", "note": ""}


def _answers(answers: Sequence[list[Token]], samplings: Sequence[Sampling]) -> list[dict[str, Any]]:
    return [
        {
            "text": "".join(token.text for token in tokens),
            "seed": sampling.seed,
            "tokens": len(tokens),
            "logprob": _sum(tokens),
        }
        for tokens, sampling in zip(answers, samplings, strict=True)
    ]


def answer_all(answerer: Answerer, chat: Chat, seen: Seen, samplings: Sequence[Sampling]) -> list[list[Token]]:
    """Return one answer per sampling; side by side where the answerer is a ``Lens`` of two halves."""
    if isinstance(answerer, Lens):
        return side_by_side(answerer, chat, seen, samplings)
    return [_ask(answerer, chat, seen, sampling) for sampling in samplings]


def _ask(answerer: Answerer, chat: Chat, seen: Seen, sampling: Sampling) -> list[Token]:
    for attempt in range(TRIES):
        try:
            return list(answerer.answer(chat, seen, sampling))
        except ModelError:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def side_by_side(lens: Lens, chat: Chat, seen: Seen, samplings: Sequence[Sampling]) -> list[list[Token]]:
    """Return the answers that ``lens.answer`` gives to each sampling, computed as one batch.

    The prompt is read once. Each answer is a beam that never splits: ``generate`` yields a token before it asks for
    the logits after it, so the logits of all answers that go on are computed in one step.
    """
    prompt = lens.prompt(chat, seen)
    samplings = [lens._fit(prompt, sampling) for sampling in samplings]
    longest = max(sampling.max_tokens for sampling in samplings)
    room = Room(prompt=len(prompt.ids), answer=longest, beams=len(samplings))
    stops = lens._stops()
    with ExitStack() as stack:
        language = stack.enter_context(lens._language_half(room, seen.seconds))
        rows = [part.visual_tokens for part in seen.pictures if part.visual_tokens is not None]
        visual = np.concatenate([part.reshape(-1, part.shape[-1]) for part in rows])
        first = language.prefill(prompt, visual)
        never = lens._never_said(stops, len(first))
        following: dict[int, np.ndarray] = {}  # number of an answer -> logits after its last token

        def drawing(number: int) -> Iterator[tuple[int, float]]:
            return generate(first, lambda ids, parents: following[number], stops, samplings[number], never)

        drawings = [drawing(number) for number in range(len(samplings))]
        said: list[list[tuple[int, float]]] = [[] for _ in samplings]
        going, beams = _advance(drawings, range(len(samplings)), said), [0] * len(samplings)
        while going:
            ids = [said[number][-1][0] for number in going]
            logits = language.step(ids, [beams[number] for number in going])
            following.clear()
            following.update({number: logits[row : row + 1] for row, number in enumerate(going)})
            beams = [going.index(number) if number in going else 0 for number in range(len(samplings))]
            going = _advance(drawings, [n for n in going if len(said[n]) < samplings[n].max_tokens], said)
    return [tokens_of(lens, one) for one in said]


def _advance(drawings: Sequence[Iterator[tuple[int, float]]], numbers: Iterable[int], said: list[Any]) -> list[int]:
    """Draw one token of each answer; return the numbers of those that go on."""
    going = []
    for number in numbers:
        drawn = next(drawings[number], None)
        if drawn is not None:
            said[number].append(drawn)
            going.append(number)
    return going


def tokens_of(lens: Any, said: Sequence[tuple[int, float]]) -> list[Token]:
    """Return ids and log-probabilities with their text."""
    stream = TextStream(lens.tokenizer)
    return [Token(stream.push(token_id), token_id, logprob) for token_id, logprob in said]


def _sum(tokens: Sequence[Token]) -> float | None:
    """The log-probability of an answer; null where an endpoint does not tell it."""
    total = float(sum(token.logprob for token in tokens))
    return round(total, 5) if np.isfinite(total) else None


def count_statuses(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return status -> rows that have it."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return counts


def weights_of(model: str | Path) -> str:
    """Return a hash of the files of a model; '' for an endpoint."""
    from handlens import PACKAGED
    from handlens.eval.session import hash_model

    return (
        ""
        if str(model).startswith(("http://", "https://")) or str(model) in (RULES, "truth")
        else hash_model(PACKAGED.get(str(model), Path(model)))
    )
