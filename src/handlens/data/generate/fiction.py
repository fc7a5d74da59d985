"""People, places, firms and numbers that belong to nobody.

Boundary: text only, in any language; made of words of the split.
"""

from random import Random

from handlens.data.generate.language import Language
from handlens.data.generate.words import code

__all__ = ["account", "address", "company", "country", "mail", "person", "word"]


def person(rng: Random, tongue: Language, split: str) -> str:
    """Return a first and a last name, in the order of the language."""
    first = tongue.first_upper(rng.choice(tongue.pool("first", split)))
    last = tongue.first_upper(rng.choice(tongue.pool("last", split)))
    if tongue.script in ("Hans", "Jpan", "Kore"):
        return last + first
    return f"{last} {first}" if tongue.code == "hu" else f"{first} {last}"


def company(rng: Random, tongue: Language, split: str) -> str:
    """Return a firm: a made-up word and a kind of shop."""
    made = tongue.first_upper(tongue.pseudo_word(rng, split, 8))
    shop = tongue.first_upper(rng.choice(tongue.pool("shop", split)))
    return f"{shop} {made}" if rng.random() < 0.5 else f"{made} {shop}"


def address(rng: Random, tongue: Language, split: str) -> str:
    """Return a made-up street and a number."""
    street = tongue.first_upper(tongue.pseudo_word(rng, split, 9))
    kind = rng.choice(tongue.pool("place", split))
    number = tongue.digits(rng, str(rng.randint(1, 250)))
    return (
        f"{number} {street} {tongue.first_upper(kind)}" if tongue.code in ("en", "fr") else f"{street} {kind} {number}"
    )


def country(rng: Random, tongue: Language, split: str) -> str:
    """Return a country that does not exist."""
    return tongue.first_upper(tongue.pseudo_word(rng, split, 10))


def mail(rng: Random, tongue: Language, split: str) -> str:
    """Return an address under a domain that is reserved for examples."""
    letters = "abcdefghijklmnoprstuvw"
    name = "".join(rng.choice(letters) for _ in range(rng.randint(2, 3)))
    return f"{name}{rng.randint(1, 99)}@{rng.choice(('a', 'b', 'c'))}{rng.randint(1, 9)}.test"


def account(rng: Random) -> str:
    """Return a number of a document."""
    return rng.choice(
        (f"{rng.randint(1, 99999):05d}", f"{rng.randint(2015, 2034)}-{rng.randint(1, 999):03d}", code(rng))
    )


def word(rng: Random, tongue: Language, split: str, name: str = "food") -> str:
    """Return one word of a list with a capital first letter."""
    return tongue.first_upper(rng.choice(tongue.pool(name, split)))
