"""Compare a bundle with the torch model it came from, token by token.

Boundary: any two answerers; which of them is torch does not matter here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handlens.answerer import Answerer, Seen, Token
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first place where two answers part."""

    picture: str
    place: int
    """Tokens that agree before it."""
    reference: str
    """What the reference says from there on."""
    candidate: str


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two answerers say the same."""

    num_tokens: int
    """Tokens of the reference answers, each end counted as one."""
    num_equal: int
    """Of these, the tokens before the first difference of each answer."""
    visual_gap: float
    """Largest difference of one number of one visual token."""
    differences: tuple[Difference, ...]

    @property
    def share(self) -> float:
        """Equal tokens of all tokens."""
        return self.num_equal / self.num_tokens if self.num_tokens else 1.0

    def __str__(self) -> str:
        first = self.differences[0] if self.differences else None
        where = f"; first in {first.picture} at token {first.place}" if first else ""
        return (
            f"{self.num_equal} of {self.num_tokens} tokens equal ({self.share:.2%}), "
            f"visual tokens within {self.visual_gap:.1e}{where}"
        )


def compare(
    reference: Answerer,
    candidate: Answerer,
    pictures: Sequence[Picture],
    *,
    question: str = "What does it say?",
    max_tokens: int = 64,
    max_slices: int | None = None,
) -> Agreement:
    """Ask both the same about every picture and compare the likeliest answers token by token."""
    num_tokens = num_equal = 0
    visual_gap = 0.0
    differences: list[Difference] = []
    for picture in pictures:
        seen = [answerer.see([picture], max_slices=max_slices) for answerer in (reference, candidate)]
        visual_gap = max(visual_gap, _visual_gap(*seen))
        answers = [
            list(answerer.answer(ask(question), view, Sampling(max_tokens=max_tokens)))
            for answerer, view in zip((reference, candidate), seen, strict=True)
        ]
        place = _first_difference(*answers)
        length = len(answers[0]) + (len(answers[0]) < max_tokens)
        num_tokens += length
        num_equal += length if place is None else place
        if place is not None:
            texts = ["".join(token.text for token in answer[place:]) for answer in answers]
            differences.append(Difference(picture=picture.name, place=place, reference=texts[0], candidate=texts[1]))
    return Agreement(num_tokens=num_tokens, num_equal=num_equal, visual_gap=visual_gap, differences=tuple(differences))


def _first_difference(ours: Sequence[Token], theirs: Sequence[Token]) -> int | None:
    pairs = zip(ours, theirs, strict=False)
    place = next((place for place, (one, other) in enumerate(pairs) if one.id != other.id), None)
    if place is None and len(ours) != len(theirs):
        return min(len(ours), len(theirs))
    return place


def _visual_gap(reference: Seen, candidate: Seen) -> float:
    """Return the largest difference; 0 where one of them sees elsewhere."""
    return max(
        (
            float(np.abs(one.visual_tokens - other.visual_tokens).max())
            for one, other in zip(reference.pictures, candidate.pictures, strict=True)
            if one.visual_tokens is not None and other.visual_tokens is not None
        ),
        default=0.0,
    )
