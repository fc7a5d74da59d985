"""Which facts a text tells: its numbers, names and content words, so that two texts can be compared.

Boundary: English captions; words are compared without their endings. No model.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

GLUE = frozenset(
    """a an the this that these those there here it its he she they them his her their is are was were be been being
    has have had do does did can could will would should may might must and or but nor so yet if then than as of in on
    at by for from to into onto over under with without about between among through during before after above below up
    down out off again further once which who whom whose what when where why how all any both each few more most other
    some such no not only own same too very just also picture image photo photograph shows show showing shown depicts
    depict displays contains contain see seen visible scene there's it's""".split()
)
"""Words that tell no fact about a picture."""
NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}
NOISE = re.compile(
    r"https?://\S+|www\.\S+|[\w.+-]+@[\w-]+\.\w+|[#@]\w+|\b[\w-]+\.(?:jpe?g|png|gif|webp)\b|\b(?:img|dsc|dscn|pic)[_-]?\d+\b"
    r"|\b(?:click|buy|shop|order|download|subscribe|follow)\b[^.!?|]*?\b(?:here|now|today|us|online)\b[!.]*"
    r"|\b(?:free shipping|stock photo|all rights reserved|limited offer|best price)\b[!.]*|[©®™]",
    re.IGNORECASE,
)
"""What comes with captions of the web and says nothing about the picture."""
_NEGATION = re.compile(r"\b(?:no|not|never|without|n't)\b|n't\b", re.IGNORECASE)
_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Facts of one text that the other does not have."""

    added: frozenset[str]
    lost: frozenset[str]

    @property
    def is_none(self) -> bool:
        """True when both texts tell the same."""
        return not self.added and not self.lost


def facts_in(text: str) -> frozenset[str]:
    """Return numbers and content words, without their endings, and ``not`` where something is denied.

    >>> sorted(facts_in("The picture shows two red cars, #sale"))
    ['2', 'car', 'red']
    """
    plain = without_noise(text)
    facts = {_stem(word) for word in _WORD.findall(plain.casefold()) if word not in GLUE}
    return frozenset((facts | ({"not"} if _NEGATION.search(plain) else set())) - {""})


def without_noise(text: str) -> str:
    """Return a caption without links, tags, file names and advertisement."""
    return re.sub(r"\s+", " ", NOISE.sub(" ", text)).strip()


def compare(told: str, given: str, allowed: Iterable[str] = ()) -> Difference:
    """Return what ``told`` says beyond ``given`` and ``allowed``, and what it leaves out of ``given``."""
    told_facts, given_facts = facts_in(told), facts_in(given)
    known = given_facts.union(*(facts_in(text) for text in allowed))
    return Difference(added=told_facts - known, lost=given_facts - told_facts)


def texts_of(truth: Any) -> list[str]:
    """Return every text that a record's truth holds, at any depth.

    >>> texts_of({"scene": "a red car", "facts": {"total": 3}})
    ['a red car', '3']
    """
    if isinstance(truth, dict):
        return [text for value in truth.values() for text in texts_of(value)]
    if isinstance(truth, list):
        return [text for value in truth for text in texts_of(value)]
    return [str(truth)] if isinstance(truth, str | int | float) and not isinstance(truth, bool) else []


def _stem(word: str) -> str:
    """Return a word without the endings that English grammar puts on."""
    if word[0].isdigit():
        return word
    word = NUMBERS.get(word, re.sub(r"['’]\w+$", "", word))
    for ending, keep in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", "e"), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + keep
            if ending in ("ing", "ed") and len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]  # running, run
            break
    return word.removesuffix("e") if len(word) > 3 else word
