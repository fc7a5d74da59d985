"""What answers are sampled for: a picture, a question, and where a generator drew it everything that is true of it.

Boundary: small values that travel to other processes; pictures are drawn or read where they are needed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from handlens.core.images import Picture
from handlens.data.records import Record
from handlens.errors import DataError

DESCRIBE = ("Describe the picture.", "What do you see?", "What is in the picture?", "What does the picture show?")
"""Questions to which a model may name anything, so that it may make things up."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture that a generator draws."""

    kind: str
    seed: int
    index: int
    split: str
    level: float

    def record(self) -> Record:
        """Return the picture with its truth.

        Raises:
            NeedsExtra: the fonts of the generators are not installed.
        """
        return _draw(self)

    def open(self) -> Picture:
        """Return the picture."""
        record = self.record()
        return Picture(record.picture, record.key)


@lru_cache(maxsize=32)
def _draw(drawn: Drawn) -> Record:
    """Draw a picture; stations look at the same one several times in a row."""
    from handlens.data.generate import generate

    return generate(drawn.kind, drawn.seed, drawn.index, split=drawn.split, level=drawn.level)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A picture of a data set."""

    name: str
    path: Path | None = None
    data: bytes | None = None

    def record(self) -> None:
        """Nothing is known of a picture that was not drawn."""

    def open(self) -> Picture:
        """Return the picture.

        Raises:
            DataError: it has vanished.
            ImageError: it is damaged.
        """
        from handlens.data.samples import Encoded

        return Encoded(name=self.name, data=self.data, path=self.path).open()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question about one picture."""

    id: str
    question: str
    picture: Drawn | Stored
    reference: str = ""
    """The true answer, or the one of the data set."""


def drawn_asks(
    count: int, *, kinds: Sequence[str] = ("scenes",), seed: int = 1, split: str = "train", level: float = 0.5,
    start: int = 0,
) -> Iterator[Ask]:  # fmt: skip
    """Yield questions about generated pictures, kinds in turn: a description of scenes, the record's own of others."""
    for number in range(start, start + count):
        picture = Drawn(kind=kinds[number % len(kinds)], seed=seed, index=number, split=split, level=level)
        record = picture.record()
        described = [turn for turn in record.turns if turn.task.endswith(".describe")]
        turn = (described or list(record.turns))[0]
        reference = turn.answer
        question = DESCRIBE[number % len(DESCRIBE)] if record.things else turn.question
        if record.things and not described:
            from handlens.data.generate.scene_talk import describe

            reference = describe(record.things, *record.picture.size)
        yield Ask(id=record.key, question=question, picture=picture, reference=reference)


def read_asks(path: Path, count: int | None = None) -> list[Ask]:
    """Return the first question of every sample of a data set.

    Raises:
        DataError: nothing is there, or no sample asks about one picture.
    """
    from handlens.core.chat import Shown
    from handlens.data.formats import read_samples
    from handlens.data.samples import said, samples_only

    asks: list[Ask] = []
    for sample in samples_only(iter(read_samples(path))):
        if len(sample.images) != 1 or not sample.chat or sample.chat[0].role != "user":
            continue
        image = sample.images[0]
        question = said(sample.chat[0]).strip()
        if question and sum(isinstance(part, Shown) for part in sample.chat[0].content) == 1:
            told = said(sample.chat[1]) if len(sample.chat) > 1 else ""
            stored = Stored(name=image.name, path=image.path, data=image.data)
            asks.append(Ask(id=sample.key, question=question, picture=stored, reference=told))
    if not asks:
        raise DataError(f"{path} asks no question about exactly one picture; see: handlens data check {path}")
    return asks[:count]


def seed_of(*parts: Any) -> int:
    """Return the seed that belongs to some values: the same on every machine, in every order of work."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:4], "big") >> 1
