"""The protocol that everything sees: see pictures once, answer many times, score continuations.

Implemented by the torch model, the bundle and any OpenAI-compatible endpoint. Imports no framework.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import SlicePlan


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model is and how it runs here."""

    name: str
    family: str
    engine: str
    """For example ``onnxruntime+llama.cpp`` or ``torch``."""
    num_queries: int
    side_px: int
    max_slices: int
    quantisation: str = "none"
    settings: str = ""
    """What ``handlens tune`` changed, in words; empty with the defaults."""
    notice: str = ""
    """What its makers want said with every answer; empty when there is nothing to warn of."""


@dataclass(frozen=True, kw_only=True)
class SeenPicture:
    """One encoded picture and how it was divided."""

    name: str
    plan: SlicePlan
    visual_tokens: Float32[np.ndarray, "slices queries dim"] | None
    """None where a remote endpoint does the seeing."""
    times: tuple[float, ...] = ()
    """Seconds of the frames that share these visual tokens; empty for a still picture."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Encoded pictures; asking twice costs one encoding."""

    pictures: tuple[SeenPicture, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds per station, for example ``load_vision`` and ``encode``."""

    @property
    def plans(self) -> list[SlicePlan]:
        """The division of every picture."""
        return [picture.plan for picture in self.pictures]

    @property
    def shows_frames(self) -> bool:
        """True when a picture is part of a clip."""
        return any(picture.times for picture in self.pictures)


@dataclass(frozen=True)
class Token:
    """One step of an answer: its text may be empty inside a multi-byte character."""

    text: str
    id: int
    logprob: float
    """Natural log of the probability before temperature and filters."""


@runtime_checkable
class Answerer(Protocol):
    """A model that can be asked about pictures."""

    info: ModelInfo

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode pictures once."""
        ...

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        """Yield the answer token by token; the stop token is not yielded."""
        ...

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability (nats) of each continuation, stop token not included."""
        ...
