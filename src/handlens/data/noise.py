"""Damage good captions the way the web does, so that the worth of rewriting can be measured.

Boundary: text and a seeded draw in, text out; the facts of the caption stay in it.
"""

from collections.abc import Callable
from random import Random

TAGS = ("photography", "love", "instagood", "sale", "art", "nature", "deal", "vintage", "style", "home")
SELLING = (
    "Buy now!", "Click here", "Free shipping", "| Stock Photo", "Order online today", "© All rights reserved",
    "Limited offer!", "Best price", "Follow us", "Shop now",
)  # fmt: skip
LEFT_OUT = frozenset("a an the is are it there of and with".split())


def hashtags(text: str, rng: Random) -> str:
    """Hang tags on."""
    return f"{text} {' '.join('#' + tag for tag in rng.sample(TAGS, rng.randint(1, 4)))}"


def selling(text: str, rng: Random) -> str:
    """Put an advertisement before or after."""
    words = rng.choice(SELLING)
    return f"{words} {text}" if rng.random() < 0.4 and words[0].isalpha() else f"{text} {words}"


def file_name(text: str, rng: Random) -> str:
    """Begin with the name of a file."""
    return f"{rng.choice(('IMG', 'DSC', 'PIC'))}_{rng.randint(100, 9999)}.{rng.choice(('jpg', 'png'))} {text}"


def fragment(text: str, rng: Random) -> str:
    """Leave out the small words that make a sentence."""
    return " ".join(word for word in text.split() if word.casefold() not in LEFT_OUT)


def repeated(text: str, rng: Random) -> str:
    """Say it twice, as alt text and title do."""
    return f"{text}{rng.choice((' - ', ' | ', ' '))}{text}"


def wrong_case(text: str, rng: Random) -> str:
    """Shout, whisper or capitalise."""
    return rng.choice((str.upper, str.lower, str.title))(text)


def no_marks(text: str, rng: Random) -> str:
    """Leave out the punctuation of sentences."""
    return "".join(char for place, char in enumerate(text) if char not in ",.;" or _in_number(text, place))


ACTS: tuple[Callable[[str, Random], str], ...] = (
    fragment, no_marks, wrong_case, repeated, hashtags, selling, file_name,
)  # fmt: skip
"""In the order in which they are applied."""


def make_noisy(text: str, rng: Random, *, level: float = 0.5) -> str:
    """Return the caption as the web might hold it; ``level`` is the chance of each damage.

    >>> make_noisy("A red car.", Random(4), level=0.0)
    'A red car.'
    """
    for act in ACTS:
        if rng.random() < level:
            text = act(text, rng)
    return text


def _in_number(text: str, place: int) -> bool:
    return 0 < place < len(text) - 1 and text[place - 1].isdigit() and text[place + 1].isdigit()
