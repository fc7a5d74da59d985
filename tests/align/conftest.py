"""An answerer whose answers and probabilities are known, to test what stands around answerers."""

import math
from collections.abc import Callable, Iterator, Sequence

import pytest
from PIL import Image

from handlens.answerer import ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import plan_slices

INFO = ModelInfo(name="known", family="nano", engine="none", num_queries=4, side_px=112, max_slices=4)


def question_in(chat: Chat) -> str:
    """The words of the last turn."""
    return "".join(part for part in chat[-1].content if isinstance(part, str)).strip()


class Known:
    """Says what a function says, and believes in a question as another function tells."""

    def __init__(
        self,
        say: Callable[[str, Sampling], str] = lambda question, sampling: "",
        believe: Callable[[str], float] = lambda question: 0.5,
    ) -> None:
        self.info = INFO
        self.say, self.believe = say, believe
        self.looks = self.scores = 0

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        self.looks += 1
        plans = [plan_slices(*picture.image.size) for picture in images]
        names = [picture.name for picture in images]
        return Seen(
            pictures=tuple(
                SeenPicture(name=name, plan=plan, visual_tokens=None) for name, plan in zip(names, plans, strict=True)
            )
        )

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        for number, char in enumerate(self.say(question_in(chat), sampling)):
            yield Token(char, number, -0.1)

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        self.scores += 1
        share = self.believe(question_in(chat))
        told = {"yes": share, "no": 1 - share}
        return [math.log(told[text]) if told.get(text) else -math.inf for text in continuations]


@pytest.fixture
def photo() -> Picture:
    return Picture(Image.new("RGB", (60, 40), "white"), "photo")


@pytest.fixture
def known() -> type[Known]:
    """The class; pytest imports no neighbours of a test."""
    return Known
