"""What travels to a worker: one picture, and what is the same for all of them.

Boundary: plain values that pickle; nothing is opened here.
"""

from dataclasses import dataclass

from handlens.batch.items import Item


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is the same for every picture."""

    model: str
    question: str
    max_slices: int | None = None
    max_tokens: int = 256
    dpi: int = 150
    """Pixels per inch at which pages are drawn."""
    max_pixels: int = 256_000_000
    cache: bool = True
    profile: bool = True
    threads: int | None = None
    """Of one worker; None takes the free cores."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One picture to ask about, with the hash of its file."""

    item: Item
    sha256: str
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Patience:
    """When a picture is given up."""

    retries: int = 2
    """Further tries after a crash, a stuck picture or an error that is not the picture's."""
    limit_seconds: float = 600.0
    """For one picture."""
