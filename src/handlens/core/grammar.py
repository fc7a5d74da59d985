"""What an answer may look like, byte by byte, and which tokens fit.

Boundary: byte strings and token ids; knows no JSON (``json_grammar.py``) and no model. A grammar is a tree of
pieces. A state is the set of all stacks of pieces that may still follow, as in a pushdown automaton.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64

from handlens.core.tokenizer import Tokenizer
from handlens.errors import SettingError

UNREACHABLE = 1 << 40
"""Bytes to the end of a piece that never ends, and of a token that does not fit."""


@dataclass(frozen=True, eq=False)
class Bytes:
    """One byte out of a set."""

    values: frozenset[int]


@dataclass(frozen=True, eq=False)
class Seq:
    """One piece after the other; an empty one is nothing at all."""

    items: tuple["Piece", ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """One of several pieces."""

    items: tuple["Piece", ...]


@dataclass(frozen=True, eq=False)
class Repeat:
    """A piece, ``least`` to ``most`` times; None is without end."""

    item: "Piece"
    least: int = 0
    most: int | None = None

    @functools.cached_property
    def rest(self) -> "Piece":
        """What may follow one of the repetitions."""
        most = None if self.most is None else self.most - 1
        if self.least == 0 and most is None:
            return self
        return Repeat(self.item, max(0, self.least - 1), most)


@dataclass(frozen=True, eq=False)
class Rule:
    """A piece with a name, so that it can contain itself."""

    name: str


Piece = Bytes | Seq | Choice | Repeat | Rule
Rules = Mapping[str, Piece]


def byte_range(first: int, last: int) -> Bytes:
    """Return one byte from ``first`` to ``last``."""
    return Bytes(frozenset(range(first, last + 1)))


def text(characters: str) -> Seq:
    """Return exactly these characters, as UTF-8."""
    return Seq(tuple(Bytes(frozenset([value])) for value in characters.encode()))


NOTHING = Seq(())
_TAIL = byte_range(0x80, 0xBF)
BEYOND_ASCII = Choice(
    (
        Seq((byte_range(0xC2, 0xDF), _TAIL)),
        Seq((byte_range(0xE0, 0xE0), byte_range(0xA0, 0xBF), _TAIL)),
        Seq((Bytes(frozenset({*range(0xE1, 0xED), 0xEE, 0xEF})), _TAIL, _TAIL)),
        Seq((byte_range(0xED, 0xED), byte_range(0x80, 0x9F), _TAIL)),
        Seq((byte_range(0xF0, 0xF0), byte_range(0x90, 0xBF), _TAIL, _TAIL)),
        Seq((byte_range(0xF1, 0xF3), _TAIL, _TAIL, _TAIL)),
        Seq((byte_range(0xF4, 0xF4), byte_range(0x80, 0x8F), _TAIL, _TAIL)),
    )
)
"""One character of two to four bytes, as valid UTF-8 (RFC 3629, section 4)."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A piece that may come next and what follows it; equal frames are one object."""

    piece: Piece | None
    """None where everything was said."""
    below: "Frame | None"
    shortest: int
    """Fewest bytes to the end."""


END = Frame(None, None, 0)
State = frozenset[Frame]
"""Frames whose piece is one byte, and ``END`` where the answer may end."""


class Grammar:
    """Reads bytes one at a time."""

    def __init__(self, root: Piece, rules: Rules) -> None:
        self._root, self._rules = root, rules
        self._lengths: dict[Piece, int] = {}
        self._frames: dict[tuple[Piece, Frame], Frame] = {}
        self._steps: dict[tuple[State, int], State] = {}
        self._rule_lengths = dict.fromkeys(rules, UNREACHABLE)
        for _ in rules:  # a rule's length settles after at most as many rounds as there are rules
            self._lengths.clear()
            self._rule_lengths = {name: self._length(piece) for name, piece in rules.items()}
        self._lengths.clear()

    def or_text(self, characters: str) -> "Grammar":
        """Return the grammar of these texts and one more."""
        return Grammar(Choice((self._root, text(characters))), self._rules)

    def start(self) -> State:
        """Return the state before the first byte."""
        return frozenset(self._open(self._frame(self._root, END), set()))

    def step(self, state: State, byte: int) -> State:
        """Return the state after a byte; an empty one where it does not fit."""
        key = (state, byte)
        if key not in self._steps:
            after: set[Frame] = set()
            visited: set[Frame] = set()
            for frame in state:
                if isinstance(frame.piece, Bytes) and byte in frame.piece.values and frame.below is not None:
                    after |= self._open(frame.below, visited)
            self._steps[key] = frozenset(after)
        return self._steps[key]

    def shortest(self, state: State) -> int:
        """Return the fewest bytes that make the answer whole."""
        return min((frame.shortest for frame in state), default=UNREACHABLE)

    def _open(self, frame: Frame, visited: set[Frame]) -> set[Frame]:
        """Return the frames that a byte can enter."""
        if frame in visited:
            return set()
        visited.add(frame)
        piece, below = frame.piece, frame.below
        if piece is None or below is None or isinstance(piece, Bytes):
            return {frame}
        if isinstance(piece, Rule):
            return self._open(self._frame(self._rules[piece.name], below), visited)
        if isinstance(piece, Seq):
            for item in reversed(piece.items):
                below = self._frame(item, below)
            return self._open(below, visited)
        if isinstance(piece, Choice):
            return set().union(*(self._open(self._frame(item, below), visited) for item in piece.items))
        found = self._open(below, visited) if piece.least == 0 else set()
        if piece.most is None or piece.most > 0:
            found |= self._open(self._frame(piece.item, self._frame(piece.rest, below)), visited)
        return found

    def _frame(self, piece: Piece, below: Frame) -> Frame:
        key = (piece, below)
        if key not in self._frames:
            self._frames[key] = Frame(piece, below, min(UNREACHABLE, self._length(piece) + below.shortest))
        return self._frames[key]

    def _length(self, piece: Piece) -> int:
        """Return the fewest bytes of a piece."""
        if piece not in self._lengths:
            self._lengths[piece] = min(UNREACHABLE, self._measure(piece))
        return self._lengths[piece]

    def _measure(self, piece: Piece) -> int:
        if isinstance(piece, Bytes):
            return 1
        if isinstance(piece, Rule):
            return self._rule_lengths[piece.name]
        if isinstance(piece, Repeat):
            return piece.least * self._length(piece.item)
        lengths = [self._length(item) for item in piece.items]
        return sum(lengths) if isinstance(piece, Seq) else min(lengths)


class GrammarConstraint:
    """A grammar bound to a vocabulary: a ``Constraint`` of ``core/sampling.py``.

    Every byte of the grammar is a token of its own, so a whole answer is always within reach: ``shortest``
    bytes are at most as many tokens.

    Raises:
        SettingError: the tokenizer is not a byte-level BPE, so its tokens are no byte strings.
    """

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer) -> None:
        self._grammar = grammar
        self._tokens = _byte_tree(tokenizer)
        self._vocab_size = tokenizer.vocab_size
        self._bytes_of = tokenizer.bytes_of
        self._reach: dict[State, Int64[np.ndarray, "vocab"]] = {}
        self.shortest = grammar.shortest(grammar.start())
        """Tokens that are enough for a whole answer."""

    def start(self) -> State:
        """Return the state before the first token."""
        return self._grammar.start()

    def allowed(self, state: State, left: int) -> Bool[np.ndarray, "vocab"]:
        """Return the tokens after which ``left - 1`` more can make the answer whole."""
        return self._reach_after(state) <= max(left - 1, self._grammar.shortest(state) - 1)

    def advance(self, state: State, token_id: int) -> State:
        """Return the state after an allowed token."""
        for byte in self._bytes_of(token_id):
            state = self._grammar.step(state, byte)
        return state

    def is_whole(self, state: State) -> bool:
        """True where the answer may end."""
        return END in state

    def _reach_after(self, state: State) -> Int64[np.ndarray, "vocab"]:
        """Return, for every token, the fewest bytes to the end after it; ``UNREACHABLE`` where it does not fit."""
        if state not in self._reach:
            reach = np.full(self._vocab_size, UNREACHABLE, dtype=np.int64)
            waiting = [(self._tokens, state)]
            while waiting:
                node, here = waiting.pop()
                reach[node.ids] = self._grammar.shortest(here) if node.ids else 0
                for byte, child in node.children.items():
                    after = self._grammar.step(here, byte)
                    if after:
                        waiting.append((child, after))
            self._reach[state] = reach
        return self._reach[state]


@dataclass(eq=False)
class _Node:
    """Tokens that begin with the same bytes."""

    ids: list[int] = field(default_factory=list)
    children: "dict[int, _Node]" = field(default_factory=dict)


@functools.lru_cache(maxsize=4)
def _byte_tree(tokenizer: Tokenizer) -> _Node:
    """Return the vocabulary as a tree of bytes, without special tokens."""
    root = _Node()
    for token_id in range(tokenizer.vocab_size):
        node = root
        for byte in tokenizer.bytes_of(token_id):
            node = node.children.setdefault(byte, _Node())
        if node is not root:
            node.ids.append(token_id)
    missing = [byte for byte in range(0x20, 0x100) if byte not in (0x7F, *_NOT_UTF8) and byte not in root.children]
    if missing:
        raise SettingError(
            f"the tokenizer has no token for the byte {missing[0]}; an answer with a set form needs a byte-level BPE"
        )
    return root


_NOT_UTF8 = (0xC0, 0xC1, *range(0xF5, 0x100))
