from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

from handlens.answerer import ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import plan_slices
from handlens.export.verify import compare


class Parrot:
    """Says given words, one token each."""

    info = ModelInfo(name="parrot", family="nano", engine="toy", num_queries=1, side_px=224, max_slices=1)

    def __init__(self, words: str, brightness: float = 0.0) -> None:
        self.words, self.brightness = words.split(), brightness

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        tokens = np.full((1, 1, 1), self.brightness, dtype=np.float32)
        plan = plan_slices(1, 1)
        return Seen(pictures=tuple(SeenPicture(name=image.name, plan=plan, visual_tokens=tokens) for image in images))

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        for word in self.words[: sampling.max_tokens]:
            yield Token(f" {word}", sum(word.encode()), 0.0)

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError


PICTURE = Picture(Image.new("RGB", (1, 1)), "dot")


@pytest.mark.parametrize(
    ("reference", "candidate", "max_tokens", "num_equal", "num_tokens", "place"),
    [
        ("a b c", "a b c", 9, 4, 4, None),  # three words and the end
        ("a b c", "a x c", 9, 1, 4, 1),  # what follows a difference does not count
        ("a b c", "a b", 9, 2, 4, 2),  # ends too early
        ("a b", "a b c", 9, 2, 3, 2),  # ends too late: the end differs
        ("a b c", "a b d", 2, 2, 2, None),  # the difference lies beyond what was asked for
        ("", "", 9, 1, 1, None),
    ],
)
def test_agreement_counts_the_common_beginning(
    reference: str, candidate: str, max_tokens: int, num_equal: int, num_tokens: int, place: int | None
) -> None:
    agreement = compare(Parrot(reference), Parrot(candidate), [PICTURE], max_tokens=max_tokens)
    assert (agreement.num_equal, agreement.num_tokens) == (num_equal, num_tokens)
    assert agreement.share == num_equal / num_tokens
    assert [difference.place for difference in agreement.differences] == ([] if place is None else [place])


def test_a_difference_says_where_and_what() -> None:
    agreement = compare(Parrot("a b c", 0.5), Parrot("a x y", 0.25), [PICTURE, PICTURE])
    assert agreement.visual_gap == 0.25
    first = agreement.differences[0]
    assert (first.picture, first.place, first.reference, first.candidate) == ("dot", 1, " b c", " x y")
    assert str(agreement) == "2 of 8 tokens equal (25.00%), visual tokens within 2.5e-01; first in dot at token 1"
