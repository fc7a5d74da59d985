"""One example as it lies in a data set: encoded pictures, a conversation, and what is said to be true.

Boundary: any number of pictures, still encoded and possibly damaged. ``records`` holds the decoded form of one
picture with its whole truth; ``formats`` reads and writes samples.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlens.core.chat import Chat, Role, Shown, Turn
from handlens.core.images import Picture, open_picture
from handlens.errors import DataError

MARK = re.compile(r"<image(?:_\d+)?>")
"""The place of a picture in the text of a foreign format."""
TRUTH = ("objects", "scene", "lines", "things", "table", "facts")
"""What a sample may say about its picture beside the conversation; the names of ``Record``."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One picture as bytes or as a file that is read when it is wanted."""

    name: str
    data: bytes | None = None
    path: Path | None = None

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            DataError: the file is missing or cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.path is None:
            raise DataError(f"the picture {self.name} is not in the data set; add it or remove the sample")
        try:
            return self.path.read_bytes()
        except (OSError, ValueError) as cause:
            reason = getattr(cause, "strerror", None) or cause
            raise DataError(f"cannot read the picture {self.path}: {reason}") from None

    def open(self) -> Picture:
        """Return the pixels, upright and in RGB.

        Raises:
            DataError: the file is missing.
            ImageError: it is no picture or a damaged one.
        """
        return open_picture(self.read(), name=self.name)


@dataclass(frozen=True)
class Fault:
    """Something wrong that was noticed while reading."""

    kind: str
    """A name of ``check.FIXES``."""
    detail: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Pictures and the conversation about them; faults are kept, never dropped."""

    key: str
    images: tuple[Encoded, ...] = ()
    chat: Chat = ()
    language: str = ""
    """BCP 47 tag; empty when nobody said."""
    licence: str = ""
    source: str = ""
    kind: str = ""
    split: str = ""
    truth: dict[str, Any] = field(default_factory=dict)
    """Plain JSON: some of ``TRUTH`` and whatever else the data set told."""
    faults: tuple[Fault, ...] = ()

    @property
    def text(self) -> str:
        """Everything that is said, turn by turn."""
        return "\n".join(said(turn) for turn in self.chat)

    @property
    def answers(self) -> list[str]:
        """What the model is to say."""
        return [said(turn) for turn in self.chat if turn.role == "assistant"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A part of a data set from which no sample can be read."""

    where: str
    fault: Fault


Found = Sample | Damage


def said(turn: Turn) -> str:
    """Return the words of a turn, without its pictures.

    >>> said(Turn("user", (Shown(0), "Which colour?")))
    'Which colour?'
    """
    return "\n".join(part for part in turn.content if isinstance(part, str))


def talk(pairs: list[tuple[str, str]], num_images: int = 1) -> Chat:
    """Return a conversation of questions and answers; the pictures stand before the first question.

    >>> talk([("Which colour?", "red")])[0].content
    (Shown(index=0), 'Which colour?')
    """
    turns: list[Turn] = []
    for number, (question, answer) in enumerate(pairs):
        shown = tuple(Shown(index) for index in range(num_images)) if number == 0 else ()
        turns += [
            Turn("user", (*shown, question) if question else shown),
            Turn("assistant", (answer,) if answer else ()),
        ]
    return tuple(turns)


def parse_turns(messages: list[tuple[Role, str]], num_images: int) -> tuple[Chat, tuple[Fault, ...]]:
    """Return the conversation of a foreign format and what is wrong with its marks.

    ``<image>`` stands for the next picture and ``<image_03>`` for picture 3. Where no mark stands anywhere the
    pictures come before the first question, as the released code does it.
    """
    marks = [mark for role, text in messages if role == "user" for mark in MARK.findall(text)]
    if not marks:
        shown = tuple(Shown(index) for index in range(num_images))
        first = next((place for place, (role, _) in enumerate(messages) if role == "user"), None)
        chat = tuple(
            Turn(role, (*(shown if place == first else ()), *((text,) if text else ())))
            for place, (role, text) in enumerate(messages)
        )
        lost = () if first is not None or not num_images else (Fault("placeholder", "no user turn shows the picture"),)
        return chat, lost
    counter, shown_indices, turns = 0, [], []
    for role, text in messages:
        if role != "user":
            turns.append(Turn(role, (text,) if text else ()))
            continue
        content: list[str | Shown] = []
        end = 0
        for mark in MARK.finditer(text):
            _append(content, text[end : mark.start()], after_mark=end > 0, before_mark=True)
            number = re.sub(r"\D", "", mark[0])
            index = int(number) if number else counter
            counter += 1
            shown_indices.append(index)
            content.append(Shown(index))
            end = mark.end()
        _append(content, text[end:], after_mark=end > 0, before_mark=False)
        turns.append(Turn(role, tuple(content)))
    if shown_indices != list(range(num_images)):
        detail = f"{len(shown_indices)} marks show pictures {shown_indices[:9]}, but the sample has {num_images}"
        return tuple(turns), (Fault("placeholder", detail),)
    return tuple(turns), ()


def marked_text(turn: Turn, mark: str = "<image>") -> str:
    r"""Return a turn as text with a mark where each picture stands; ``{index}`` in the mark is filled in.

    >>> marked_text(Turn("user", (Shown(0), "Which colour?")))
    '<image>\nWhich colour?'
    """
    return "\n".join(mark.format(index=part.index) if isinstance(part, Shown) else part for part in turn.content)


def samples_only(found: Iterator[Found]) -> Iterator[Sample]:
    """Return the samples.

    Raises:
        DataError: a part of the data set cannot be read.
    """
    for item in found:
        if isinstance(item, Damage):
            raise DataError(f"{item.where}: {item.fault.detail}; see: handlens data check")
        yield item


def _append(content: list[str | Shown], text: str, *, after_mark: bool, before_mark: bool) -> None:
    """Add text without the one line break, or the spaces, that part it from a mark."""
    if after_mark:
        text = text[1:] if text.startswith("\n") else text.lstrip(" ")
    if before_mark:
        text = text[:-1] if text.endswith("\n") else text.rstrip(" ")
    if text:
        content.append(text)
