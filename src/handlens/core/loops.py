"""Notice an answer that says the same again and again.

Boundary: token ids only; knows no model and no text. ``sampling.py`` ends the answer.
"""

import numpy as np

LONGEST_UNIT = 128
"""Tokens of the longest piece whose repetition is noticed."""
MIN_REPEATS = 6
"""A piece said fewer times in a row is no loop: rows of a table can be equal."""
MIN_TOKENS = 96
"""Repetition that covers fewer tokens is no loop: ruled lines and rows of zeros repeat short pieces often."""


class LoopGuard:
    """Watches the end of an answer.

    A loop is one piece of 1 to ``LONGEST_UNIT`` tokens, said at least ``MIN_REPEATS`` times in a row without
    any change, that covers at least ``MIN_TOKENS`` tokens. A repetition penalty is no substitute: it also
    punishes the bars of a table.

    >>> guard = LoopGuard()
    >>> [guard.push(token) for token in [7, 8] * 48].index(True)
    95
    """

    def __init__(self) -> None:
        units = np.arange(1, LONGEST_UNIT + 1)
        self._loop_at = np.maximum(MIN_TOKENS, MIN_REPEATS * units) - units
        """For each unit the agreement at which it is a loop."""
        self._agreed = np.zeros(LONGEST_UNIT, dtype=np.int64)
        """Tokens in a row, up to the last one, that equal the token one unit before."""
        self._ids = np.full(4 * LONGEST_UNIT, -1, dtype=np.int64)
        """The latest tokens, after at least ``LONGEST_UNIT`` earlier ones, or -1 where there were none."""
        self._end = LONGEST_UNIT

    def push(self, token_id: int) -> bool:
        """Take the next token; True from the moment on when the answer is in a loop."""
        if self._end == len(self._ids):
            self._ids[:LONGEST_UNIT] = self._ids[-LONGEST_UNIT:]
            self._end = LONGEST_UNIT
        nearest_first = self._ids[self._end - LONGEST_UNIT : self._end][::-1]
        self._agreed += 1
        self._agreed *= nearest_first == token_id
        self._ids[self._end] = token_id
        self._end += 1
        return bool((self._agreed >= self._loop_at).any())
