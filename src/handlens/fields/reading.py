"""Ask one field of a picture, or of a part of it, and say how likely the answer is.

Boundary: sees the model through ``Answerer`` and its tokenizer; knows no slices and no calibration.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from handlens.answerer import Seen
from handlens.asking import Model
from handlens.core.chat import Chat, ask
from handlens.core.grammar import GrammarConstraint
from handlens.core.sampling import Sampling
from handlens.errors import SettingError
from handlens.fields.forms import NOT_PRESENT, Form
from handlens.fields.schema import Field

REQUEST = f' Answer with the value alone, as it is printed, or with "{NOT_PRESENT}" if the picture does not show it.'
"""Follows the question where a model was not trained to answer fields in this way."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One answer to one field."""

    text: str
    """As it is printed, or ``not present``."""
    probability: float
    """Of exactly this answer among all that the form allows."""
    absent: float
    """Probability of ``not present`` among the beginnings that the form allows."""

    @property
    def is_present(self) -> bool:
        """True where the answer is a value."""
        return self.text != NOT_PRESENT


class Reader:
    """Asks fields; what was computed for a form is kept for the next picture."""

    def __init__(self, model: Model, *, max_tokens: int = 64, before_each: Callable[[], None] | None = None) -> None:
        tokenizer = getattr(model.answerer, "tokenizer", None)
        if tokenizer is None:
            raise SettingError(
                f"{model.info.name} ({model.info.engine}) cannot be held to a form, which fields need; use a bundle"
            )
        self.model, self.max_tokens, self._tokenizer = model, max_tokens, tokenizer
        self._before_each = before_each or (lambda: None)
        self._stops = sorted(tokenizer.id_of(stop) for stop in model.family.template.stops)
        self._constraints: dict[Form, GrammarConstraint] = {}

    def chat_of(self, field: Field, num_pictures: int = 1) -> Chat:
        """Return the question of a field; nano is asked as it was trained, others are told how to answer."""
        if self.model.info.family == "nano":
            return ask(field.question, num_pictures)
        hint = f" ({field.hint})" if field.hint else ""
        return ask(f"{field.question}{hint}{REQUEST}", num_pictures)

    def read(self, field: Field, seen: Seen) -> Reading:
        """Return the likeliest answer, token by token, that fits the form."""
        self._before_each()
        constraint = self._constraint(field.form)
        chat, watched = self.chat_of(field, len(seen.pictures)), list[np.ndarray]()
        sampling = Sampling(max_tokens=self.max_tokens, constraint=constraint, watch=watched.append)
        tokens = list(self.model.answer(chat, seen, sampling))
        logprob, mass = self._under_form(constraint, watched, [token.id for token in tokens])
        answer = "".join(token.text for token in tokens)
        (absent,) = self.model.score(chat, seen, [NOT_PRESENT])
        return Reading(
            text=" ".join(answer.split()) if field.form.kind == "text" else answer,
            probability=math.exp(min(0.0, logprob)),
            absent=math.exp(min(0.0, absent - mass)),
        )

    def scores(self, field: Field, seen: Seen, answers: Sequence[str]) -> list[float]:
        """Return the log-probability (nats) of each answer to a field."""
        self._before_each()
        return self.model.score(self.chat_of(field, len(seen.pictures)), seen, answers)

    def _constraint(self, form: Form) -> GrammarConstraint:
        if form not in self._constraints:
            constraint = GrammarConstraint(form.grammar, self._tokenizer)
            self._constraints[form] = constraint
        return self._constraints[form]

    def _under_form(
        self, constraint: GrammarConstraint, watched: Sequence[np.ndarray], ids: Sequence[int]
    ) -> tuple[float, float]:
        """Return ln of the answer's probability among allowed tokens, and ln of the allowed first tokens' mass."""
        state, total, first = constraint.start(), 0.0, 0.0
        for place, row in enumerate(watched):
            allowed = constraint.allowed(state, self.max_tokens - place)
            kept = row[: len(allowed)][allowed]
            if constraint.is_whole(state):
                kept = np.concatenate([kept, row[self._stops]])
            mass = float(np.logaddexp.reduce(kept))
            first = mass if place == 0 else first
            if place < len(ids):
                total += float(row[ids[place]]) - mass
                state = constraint.advance(state, ids[place])
            else:
                total += float(np.logaddexp.reduce(row[self._stops])) - mass
        return total, first
