"""Guess what follows from what stands in the prompt and the answer so far, and check several guesses in one batch.

Boundary: token ids and logits; knows no file and no picture. The answer is the one that single steps give:
``core/sampling.py`` chooses every token itself, and a guess only means that its logits are there already.
"""

import os
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from handlens.core.prompt import Prompt
from handlens.core.sampling import Sampling
from handlens.engine.setup import LOOKUP

NO_LOOKUP = "HANDLENS_NO_LOOKUP"
"""Environment variable: 1 lets every answer be computed token by token."""
LEAST_MATCH = 3
"""Tokens that are looked for."""
SMALL_VOCABULARY, SMALL_MATCH = 4096, 8
"""Where tokens are little more than letters, so many must agree before a guess is made."""
MOST_MATCH = 48
"""Agreement that is asked for at most after wrong guesses."""
FIRST_MARGIN = 0.5
"""Lead that a choice needs, in deviations of all logits, until the error of a batch was measured once."""
LEAST_MARGIN = 0.02
"""The same after that, where a batch gave the very numbers of single steps."""
ERRORS_OF_LEAD = 4.0
"""Lead that a choice needs, in measured errors."""
GUESS_COST, MOST_LOSS = 0.5, 4.0
"""What a guess costs, in steps, on a processor without matrix units; and the loss after which an answer is no more
guessed."""

Step = Callable[[Sequence[int], Sequence[int]], Float32[np.ndarray, "beams vocab"]]


@runtime_checkable
class Reader(Protocol):
    """A language half that reads several tokens of one answer at once."""

    def read(self, ids: Sequence[int]) -> Float32[np.ndarray, "tokens vocab"]:
        """Return the logits after each of ``ids``, which follow one another."""
        ...

    def forget(self, count: int) -> None:
        """Take back the last tokens."""
        ...

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after ``ids``; beam b continues the earlier beam ``parents[b]``."""
        ...


class Guesser:
    """Proposes what followed where the latest tokens were said before.

    As many tokens are proposed as agree before that place: a chance match proposes few, a copied line many.

    >>> guesser = Guesser([5, 6, 7, 8, 9, 1, 5, 6, 7], most=4)
    >>> guesser.guess()
    [8, 9, 1]
    """

    def __init__(self, ids: Sequence[int], *, most: int, least: int = LEAST_MATCH) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}
        self._place: int | None = None
        """Where the tokens stand that followed the latest match."""
        self._most, self._least, self._needed = most, least, least
        for token_id in ids:
            self.push(token_id)

    def push(self, token_id: int) -> None:
        """Take the next token; a negative one is a place without text."""
        self._ids.append(token_id)
        key = tuple(self._ids[-LEAST_MATCH:])
        self._place = None
        if len(key) == LEAST_MATCH and min(key) >= 0:
            self._place = self._places.get(key)
            self._places[key] = len(self._ids)

    def guess(self) -> list[int]:
        """Return the proposed tokens; none where nothing agrees well enough."""
        if self._place is None:
            return []
        agreed = self._agreed(self._place)
        if agreed < self._needed:
            return []
        period = len(self._ids) - self._place  # what repeats goes on repeating
        found: list[int] = []
        for place in range(min(agreed, self._most)):
            token_id = self._ids[self._place + place % period]
            if token_id < 0:
                break
            found.append(token_id)
        return found

    def learn(self, guessed: int, right: int) -> None:
        """Ask for longer agreement after bad guesses, for less after good ones."""
        is_good = 2 * right >= guessed
        self._needed = max(self._needed // 2, self._least) if is_good else min(2 * self._needed, MOST_MATCH)

    def _agreed(self, place: int) -> int:
        count, end = LEAST_MATCH, len(self._ids)
        most = min(place, MOST_MATCH)
        while count < most and self._ids[place - 1 - count] == self._ids[end - 1 - count] >= 0:
            count += 1
        return count


class LookAhead:
    """Stands in for ``LanguageHalf.step`` of one greedy answer.

    A batch may round its sums in another order than single steps. So the lead that a choice needs is kept here
    (``margin``); where two tokens are nearer than that, everything since the last exact token is computed again one by
    one (``alone``), which also measures the error.

    Args:
        reader: the language half, after its prefill.
        step: reads one token.
        prompt: what was read, in which copies are looked for too.
        first: logits after the prompt.
        most: tokens that are guessed at once.
        longest: tokens of the longest answer; nothing is read beyond.
    """

    def __init__(
        self,
        reader: Reader,
        step: Step,
        prompt: Prompt,
        first: Float32[np.ndarray, "vocab"],
        *,
        most: int,
        longest: int,
    ) -> None:
        self._reader, self._step, self._left = reader, step, longest
        least = LEAST_MATCH if len(first) >= SMALL_VOCABULARY else SMALL_MATCH
        self._guesser = Guesser(text_of(prompt).tolist(), most=most, least=least)
        self._gain = 0.0
        self._ahead: list[tuple[int, np.ndarray]] = []
        """Guesses that were read but not yet chosen, each with the logits after it."""
        self._guessed = 0
        self._unsure: list[int] = []
        """Tokens of the answer from the first one on that was read in a batch."""
        self._latest = first
        self._is_batched = False
        """The latest logits came from a batch."""
        self._scale = float(first.std())
        self._margin = FIRST_MARGIN * self._scale
        self.num_steps = 0
        """Times that the model ran."""
        self.num_right = 0
        """Tokens that had been guessed."""

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after the next token of the answer."""
        (token_id,) = ids
        self._left -= 1
        self._guesser.push(token_id)
        if self._ahead and self._ahead[0][0] == token_id:
            self._latest, self._is_batched = self._ahead.pop(0)[1], True
            self._unsure.append(token_id)
            self.num_right += 1
            if not self._ahead:
                self._learn(self._guessed)
        else:
            self._drop()
            self._latest = self._read(token_id)
        return self._latest[None]

    def margin(self) -> float:
        """Return the lead, in nats, below which a choice could be an error of rounding; 0 where there is none."""
        return self._margin if self._unsure else 0.0

    def alone(self) -> Float32[np.ndarray, "vocab"]:
        """Return the latest logits as single steps give them."""
        self._drop()
        self._guesser.learn(1, 0)  # where choices are close, a batch is paid twice
        ids, self._unsure = self._unsure, []
        self._gain -= len(ids)
        self._reader.forget(len(ids))
        before, was_batched = self._latest, self._is_batched
        for token_id in ids:
            self._latest = self._one(token_id)
        if not was_batched:
            return self._latest
        error = ERRORS_OF_LEAD * float(np.abs(self._latest - before).max())
        least = max(LEAST_MARGIN * self._scale, error)
        is_first = self._margin == FIRST_MARGIN * self._scale
        self._margin = least if is_first else max(least, self._margin)
        return self._latest

    def _read(self, token_id: int) -> Float32[np.ndarray, "vocab"]:
        guesses = self._guesser.guess()[: max(0, self._left - 1)] if self._gain > -MOST_LOSS else []
        if not guesses:
            if self._unsure:
                self._unsure.append(token_id)
            return self._one(token_id)
        rows = self._reader.read([token_id, *guesses])
        self.num_steps += 1
        self._ahead, self._guessed = list(zip(guesses, rows[1:], strict=True)), len(guesses)
        self._unsure.append(token_id)
        self._is_batched = True
        return rows[0]

    def _one(self, token_id: int) -> Float32[np.ndarray, "vocab"]:
        self.num_steps += 1
        self._is_batched = False
        return self._step([token_id], [0])[0]

    def _drop(self) -> None:
        """Take back guesses that were not chosen."""
        if self._ahead:
            self._reader.forget(len(self._ahead))
            self._learn(self._guessed - len(self._ahead))
            self._ahead = []

    def _learn(self, right: int) -> None:
        self._guesser.learn(self._guessed, right)
        self._gain += right - GUESS_COST * self._guessed


def text_of(prompt: Prompt) -> Int64[np.ndarray, "tokens"]:
    """Return the ids of a prompt, -1 where a visual token stands."""
    return np.where(prompt.is_visual, -1, prompt.ids)


def most_guessed(vocab_size: int) -> int:
    """Return how many tokens are guessed where nothing was set: none where tokens are little more than letters.

    >>> most_guessed(282), most_guessed(122_753)
    (0, 15)
    """
    return LOOKUP if vocab_size >= SMALL_VOCABULARY else 0


def may_look(sampling: Sampling) -> bool:
    """True where an answer can be guessed ahead: it is greedy and nobody asks for every number."""
    is_plain = sampling.temperature == 0 and sampling.num_beams == 1 and sampling.repetition_penalty == 1.0
    return is_plain and sampling.watch is None and os.environ.get(NO_LOOKUP, "") in ("", "0")
