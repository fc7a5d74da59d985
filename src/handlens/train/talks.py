"""A user's own data as a stream of samples: pictures and conversations of any format that ``data.formats`` reads.

Boundary: files in, samples of ``feed.py`` out; the tokens are those of ``data.render``.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from handlens.config import HandlensConfig
from handlens.core.patches import to_patches
from handlens.core.slicing import cut
from handlens.core.tokenizer import Tokenizer
from handlens.data.check import look
from handlens.data.formats import read_samples
from handlens.data.render import Target, render
from handlens.data.samples import Sample as Talk
from handlens.data.samples import samples_only
from handlens.errors import DataError, HandlensError
from handlens.families import family_named
from handlens.train.feed import IGNORED, Sample
from handlens.train.phases import Phase

BLOCKING = {
    "unreadable", "misshapen", "missing-image", "corrupt-image", "placeholder", "roles", "empty", "broken-text",
    "too-long",
}  # fmt: skip
"""Problems of ``data.check`` with which a sample would teach something else than what was meant, or nothing."""


def read_talks(path: Path) -> list[Talk]:
    """Return the samples of a data set.

    Raises:
        DataError: nothing is there, a part cannot be read, or a sample has a fault.
    """
    talks = list(samples_only(iter(read_samples(path))))
    for talk in talks:
        if talk.faults:
            fault = talk.faults[0]
            raise DataError(f"{path}: sample {talk.key}: {fault.detail}; see all with: handlens data check {path}")
    if not talks:
        raise DataError(f"{path} holds no sample; see: handlens data check {path}")
    return talks


def fingerprint(talks: Sequence[Talk]) -> str:
    """Return a hash of what samples say and of which pictures they name; their order counts, their pixels do not."""
    rows = [[talk.key, [image.name for image in talk.images], repr(talk.chat)] for talk in talks]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def set_apart(talks: Sequence[Talk], share: float, seed: int) -> tuple[list[Talk], list[Talk]]:
    """Return samples to learn from, and those that are only looked at.

    Raises:
        DataError: too few samples for both.
    """
    order = list(talks)
    random.Random(f"{seed}/held out").shuffle(order)
    count = max(round(share * len(order)), 1) if share > 0 else 0
    if count >= len(order):
        raise DataError(f"{len(order)} samples are too few to hold out {share:.0%}; add samples or give --held-out 0")
    return order[count:], order[:count]


class Talks:
    """Samples in an order that is shuffled anew every time round."""

    def __init__(self, talks: Sequence[Talk], config: HandlensConfig, tokenizer: Tokenizer, seed: int) -> None:
        slicing = config.slicing
        family = replace(family_named(config.family), side_px=slicing.side_px, max_slices=slicing.max_slices)
        self.talks, self.seed = list(talks), seed
        self.patch_px = slicing.patch_px
        self.target = Target(family=family, tokenizer=tokenizer, num_queries=config.resampler.num_queries)

    def __len__(self) -> int:
        return len(self.talks)

    def __call__(self, phase: Phase, own: random.Random, index: int, split: str) -> Sample:
        """Return sample number ``index`` of the endless stream."""
        round_, number = divmod(index, len(self.talks))
        order = list(range(len(self.talks)))
        random.Random(f"{self.seed}/talks/{round_}").shuffle(order)
        return self.build(self.talks[order[number]])

    def faults(self, limit: int) -> Iterator[str]:
        """Give for each sample what is wrong with it, or an empty word; every picture is opened.

        Args:
            limit: longest sample in tokens.
        """
        for talk in self.talks:
            found = look(talk, self.target, limit, hashed=False).faults
            details = [fault.detail for fault in found if fault.kind in BLOCKING]
            if not talk.chat:
                details.append("there is no conversation")
            yield f"sample {talk.key}: {details[0]}" if details else ""

    def build(self, talk: Talk) -> Sample:
        """Return one sample, ready to be batched.

        Raises:
            DataError: a picture is missing or damaged, or the conversation has no answer.
        """
        try:
            pictures = [image.open() for image in talk.images]
            rendered = render(talk.chat, [picture.image.size for picture in pictures], self.target)
        except HandlensError as cause:
            raise DataError(f"sample {talk.key}: {cause}") from None
        plans = tuple(self.target.plan(picture.image.size) for picture in pictures)
        patches = [
            to_patches(np.asarray(image).transpose(2, 0, 1), self.patch_px)
            for picture, plan in zip(pictures, plans, strict=True)
            for image in cut(picture.image, plan)
        ]
        is_target = rendered.is_target
        # A new answer begins where a target follows something else.
        starts = is_target & ~np.concatenate([[False], is_target[:-1]])
        numbers = np.where(is_target, np.cumsum(starts) - 1, -1)
        return Sample(
            patches=patches, plans=plans, labels=None, ids=rendered.ids, is_visual=rendered.is_visual,
            targets=np.where(is_target, rendered.ids, IGNORED), tasks=numbers,
            task_names=("answers",) * int(starts.sum()),
        )  # fmt: skip
