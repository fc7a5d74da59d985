"""When two samples are the same: exact and perceptual hashes of pictures, likeness of texts, banded LSH.

Boundary: pixels and text in, small numbers out; nothing is compared with everything.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64
from PIL import Image

NUM_BANDS = 4
"""Bands of 16 bits: two hashes of 64 bits that differ in ``SURE_BITS`` or fewer share at least one."""
SURE_BITS = NUM_BANDS - 1
NEAR_BITS = 8
"""Pairs up to here count as near when a band brings them together; beyond ``SURE_BITS`` some pairs never meet."""
NEAR_DETAIL_BITS = 16
"""Of the 240 bits of the fine hash; re-saved and rescaled pictures stay below, other lines of one page do not."""
NEAR_TEXT = 0.8


@dataclass(frozen=True, kw_only=True)
class PictureHash:
    """Three views of one picture, from strict to forgiving."""

    exact: str
    """sha256 of size and RGB pixels."""
    rough: int
    """64 bits: signs of the low frequencies of 32x32 gray pixels (pHash)."""
    fine: int
    """240 bits: is each of 16x16 gray pixels darker than its right neighbour."""


def hash_picture(image: Image.Image) -> PictureHash:
    """Return the hashes of an RGB picture."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    gray = image.convert("L")
    small = np.asarray(gray.resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    basis = _cosines(32)[:8]
    low = (basis @ small @ basis.T).ravel()
    # The mean brightness says nothing about the picture, so the median is that of the other 63 numbers.
    rough = _number(low > np.median(low[1:]))
    tiny = np.asarray(gray.resize((16, 16), Image.Resampling.LANCZOS), dtype=np.int16)
    return PictureHash(exact=digest.hexdigest(), rough=rough, fine=_number((tiny[:, :-1] < tiny[:, 1:]).ravel()))


def are_near(one: PictureHash, other: PictureHash) -> bool:
    """True when one picture could be the other, saved again or rescaled."""
    if one.exact == other.exact:
        return True
    near = (one.rough ^ other.rough).bit_count() <= NEAR_BITS
    return near and (one.fine ^ other.fine).bit_count() <= NEAR_DETAIL_BITS


def bands(rough: int) -> Iterator[tuple[int, int]]:
    """Yield (number of the band, its bits): near hashes share one of them.

    >>> list(bands(0x0001_0002_0003_0004))
    [(0, 4), (1, 3), (2, 2), (3, 1)]
    """
    width = 64 // NUM_BANDS
    for number in range(NUM_BANDS):
        yield number, rough >> number * width & (1 << width) - 1


def normal_text(text: str) -> str:
    r"""Return text with everything removed that does not make it another text.

    >>> normal_text("  The  CAT\u00a0sat. ")
    'the cat sat.'
    """
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def text_likeness(one: str, other: str) -> float:
    """Return the share of letter triples that two texts have in common (Jaccard), 0 to 1.

    >>> text_likeness("a red star", "A red  star"), text_likeness("a red star", "12.50")
    (1.0, 0.0)
    """
    first, second = _triples(normal_text(one)), _triples(normal_text(other))
    if not first and not second:
        return 1.0
    return len(first & second) / len(first | second)


class Neighbours:
    """Samples seen so far, found again by exact hash or by band."""

    def __init__(self) -> None:
        self._exact: dict[Hashable, str] = {}
        self._banded: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._kept: list[tuple[str, PictureHash, str]] = []

    def find(self, hashes: tuple[PictureHash, ...], text: str) -> tuple[str, bool] | None:
        """Return the key of a sample that this one repeats, and whether it does so exactly."""
        key = self._exact.get(_identity(hashes, text))
        if key is not None:
            return key, True
        if len(hashes) != 1:
            return None
        tried: set[int] = set()
        for band in bands(hashes[0].rough):
            for place in self._banded.get(band, ()):
                if place not in tried:
                    tried.add(place)
                    other_key, other_hash, other_text = self._kept[place]
                    if are_near(hashes[0], other_hash) and text_likeness(text, other_text) >= NEAR_TEXT:
                        return other_key, False
        return None

    def add(self, key: str, hashes: tuple[PictureHash, ...], text: str) -> None:
        """Remember a sample."""
        self._exact.setdefault(_identity(hashes, text), key)
        if len(hashes) == 1:
            for band in bands(hashes[0].rough):
                self._banded[band].append(len(self._kept))
            self._kept.append((key, hashes[0], text))


def _identity(hashes: tuple[PictureHash, ...], text: str) -> tuple[str, ...]:
    return (*(picture.exact for picture in hashes), normal_text(text))


def _triples(text: str) -> set[str]:
    return {text[start : start + 3] for start in range(max(len(text) - 2, 1))} if text else set()


def _number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _cosines(size: int) -> Float64[np.ndarray, "rows columns"]:
    """Rows of the discrete cosine transform."""
    places = np.arange(size)
    return np.cos(np.pi * np.outer(places, places + 0.5) / size)
