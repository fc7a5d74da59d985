"""Conversations: turns of text with pictures standing in them.

Boundary: plain data; ``prompt.py`` turns it into token ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from handlens.errors import SettingError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Shown:
    """The place of a picture in a turn; ``index`` counts the pictures of the conversation from 0."""

    index: int


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: Role
    content: tuple[str | Shown, ...]


Chat = tuple[Turn, ...]


def ask(question: str, num_pictures: int = 1) -> Chat:
    """Return a conversation of one question about ``num_pictures`` pictures shown before it."""
    return (Turn("user", (*(Shown(index) for index in range(num_pictures)), question)),)


def reply(chat: Chat, answer: str, question: str) -> Chat:
    """Return the conversation with the model's answer and the next question appended."""
    return (*chat, Turn("assistant", (answer,)), Turn("user", (question,)))


def check(chat: Chat, num_pictures: int) -> None:
    """Raise ``SettingError`` unless every picture is shown exactly once, in order, and a user speaks last."""
    shown: Sequence[int] = [part.index for turn in chat for part in turn.content if isinstance(part, Shown)]
    if list(shown) != list(range(num_pictures)):
        raise SettingError(
            f"the chat shows pictures {list(shown)} but {num_pictures} were given; show each once, in order"
        )
    if not chat or chat[-1].role != "user":
        raise SettingError("the chat must end with a user turn")
