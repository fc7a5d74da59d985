"""Answerers whose score is known beforehand; they see file names and questions, and never a pixel."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from handlens.answerer import ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat, Shown
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import plan_slices


class Scripted:
    """Says what ``say`` makes of the question and the name of the picture, which is the id of its item."""

    def __init__(self, say: Callable[[str, str], str], name: str = "scripted") -> None:
        self.info = ModelInfo(name=name, family="nano", engine="none", num_queries=1, side_px=224, max_slices=1)
        self.say = say
        self.asked: list[str] = []
        self.seen = 0

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        self.seen += 1
        shown = [SeenPicture(name=one.name, plan=plan_slices(*one.image.size), visual_tokens=None) for one in images]
        return Seen(pictures=tuple(shown))

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        (turn,) = chat
        assert [part.index for part in turn.content if isinstance(part, Shown)] == list(range(len(seen.pictures)))
        question = "\n".join(part for part in turn.content if isinstance(part, str))
        self.asked.append(question)
        text = self.say(question, seen.pictures[0].name if seen.pictures else "")
        for start in range(0, len(text), 50_000):
            yield Token(text[start : start + 50_000], 0, 0.0)

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError


@pytest.fixture
def scripted() -> type[Scripted]:
    """The class; test files cannot import each other."""
    return Scripted
