"""What a language can say: words, numbers, dates, money, names of fields, and its questions.

Boundary: text only. Words come from ``data/languages/CODE.json`` (ours) and, where Babel is
installed, from CLDR; a word is held out by its hash, and training text never contains one.
"""

import json
import string
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import Any

from handlens.data.generate import words
from handlens.data.generate.fonts import Font, fonts_of
from handlens.data.generate.world import fonts_for, has_letters
from handlens.data.records import Turn
from handlens.errors import DataError, NeedsExtra, did_you_mean

FOLDER = Path(__file__).parents[1] / "languages"
LANGUAGES: tuple[str, ...] = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
"""Codes of all languages; English is ``en``."""

_UNSPACED = ("Hans", "Jpan", "Thai")
_ALPHABETS = ("Latn", "Cyrl", "Geor", "Armn")
_EVERYWHERE = string.ascii_letters + string.digits + " .,:;/-+%#()\"'!?="
_POOLS = ("food", "thing", "shop", "place", "sign", "first", "last", "city")

# Fixed forms of a language without sentences of its own: two words and a mark ask in any grammar.
_FIXED: dict[str, tuple[str, ...]] = {
    "line": ("{n}?", "# {n}?"), "field": ("{name}?", "{name}: ?", "{name} = ?"), "has": ("{yes}/{no}: {name}?",),
    "ticked": ("{yes}/{no}: ☐ {name}?",), "cell": ("{row}: {column}?", "{row}, {column}: ?"),
    "price": ("{w_price}: {name}?", "{name}: {w_price}?"), "total": ("{w_total}?", "{w_total}: ?"),
    "date": ("{w_date}?", "{w_date}: ?"), "shop": ("{w_company}?", "{w_company}: ?"),
    "items": ("{w_quantity}: {w_item}?",), "rows": ("{w_quantity}: —?",), "columns": ("{w_quantity}: |?",),
    "markdown": ("Markdown?", "Markdown: ?"), "html": ("HTML?", "HTML: ?"),
    "value": ("{w_value}: {name}?", "{name}: ?"), "largest": ("max?", "max: ?"), "smallest": ("min?", "min: ?"),
    "larger": ("{yes}/{no}: {one} > {two}?",), "bars": ("{w_quantity}?",), "title": ("{w_subject}?", "{w_subject}: ?"),
    "latex": ("LaTeX?", "LaTeX: ?"), "symbol": ("{yes}/{no}: {name}?",), "code": ("Code?", "Code: ?"),
    "who": ("{w_sender}: “{text}”?",), "last": ("{w_bottom}?",), "messages": ("{w_quantity}?",),
    "north": ("{yes}/{no}: {one} ↑ {two}?",), "where": ("{the}: {w_left} / {w_right}?",),
    "colour": ("{the}: {w_colour}?", "{w_colour}: {the}?"), "shape": ("{colour}: {w_shape}?", "{w_shape}: {colour}?"),
    "count": ("{w_quantity}: {what}?", "{what}: {w_quantity}?"), "all": ("{w_quantity}: {w_shape}?",),
    "exists": ("{yes}/{no}: {what}?",), "left": ("{yes}/{no}: {one} ← {two}?",),
    "right": ("{yes}/{no}: {two} → {one}?",), "above": ("{yes}/{no}: {one} ↑ {two}?",),
    "below": ("{yes}/{no}: {one} ↓ {two}?",), "describe": ("{w_shape}, {w_colour}?",),
    "front": ("{one} / {two}: {w_top}?",), "hidden": ("{yes}/{no}: {the} ◐?",), "nearest": ("{the} ↔ ?",),
}  # fmt: skip


class Language:
    """One language: everything that a drawing function needs to print and ask in it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.code: str = facts["code"]
        self.name: str = facts["name"]
        self.tier: str = facts["tier"]
        self.script: str = facts["script"]
        self.is_rtl: bool = facts.get("rtl", False)
        self.has_case = self.script in ("Latn", "Cyrl", "Armn")
        self.colours: dict[str, str] = facts["colours"]
        self.shapes: dict[str, str] = facts["shapes"]
        self.decimals: int = facts.get("decimals", 2)
        self._labels = {token for label in self._template() for token in self._tokens(label)}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that this language can be drawn in; empty for all."""
        return tuple(self.facts.get("kinds", ()))

    def word(self, key: str) -> str:
        """Return the language's name of a field or its word for yes, no, left ..."""
        return self.facts["words"].get(key, key)

    @property
    def not_present(self) -> str:
        """The answer to a question about what the picture does not show."""
        return self.word("not present")

    # --- words ---------------------------------------------------------------------------

    def fold(self, word: str) -> str:
        """Return the word as it is compared: lower case by the language's own rule."""
        if self.code in ("tr", "az"):
            word = word.replace("İ", "i").replace("I", "ı")
        return word.casefold()

    def upper(self, word: str) -> str:
        """Return capitals by the language's own rule; Georgian and scripts without case stay."""
        if self.code in ("tr", "az"):
            word = word.replace("i", "İ")
        return word.upper() if self.has_case else word

    def first_upper(self, word: str) -> str:
        """Return the word with a capital first letter."""
        return self.upper(word[:1]) + word[1:] if word else word

    def is_heldout(self, text: str) -> bool:
        """True where training must never show the text: one of its words is held out."""
        return any(self._holds_out(token) for token in self._tokens(text))

    def _holds_out(self, token: str) -> bool:
        if token in self._labels or len(token) < (4 if self.script in _ALPHABETS else 2):
            return False
        return zlib.crc32(token.encode()) % 100 < 15

    def _tokens(self, text: str) -> list[str]:
        folded = self.fold(text)
        return [token for token in (part.strip(_EDGES) for part in folded.split()) if not _NUMERIC & set(token)]

    def _template(self) -> list[str]:
        facts = self.facts
        out = [*facts["words"].values(), *facts["money"], *facts["colours"].values(), *facts["shapes"].values()]
        return out + facts.get("letter", []) + facts.get("chat", []) + list(self._months)

    @cached_property
    def _months(self) -> tuple[str, ...]:
        months = _locale(self.facts["locale"]).months["format"]["wide"]
        return tuple(_clean(months[number]) for number in range(1, 13))

    @cached_property
    def _far_words(self) -> tuple[str, ...]:
        """Names of countries and languages from CLDR that the fonts of both splits can print."""
        locale = _locale(self.facts["locale"])
        names = {_clean(str(name)) for source in (locale.territories, locale.languages) for name in source.values()}
        fit = [name for name in names if 2 <= len(name) <= 20 and not set(name) & set("()（）/0123456789«»")]
        own = frozenset(self.letters)
        good = [name for name in fit if self._is_own(name) and all(c in own or self.can_print(c) for c in name)]
        return tuple(sorted(good))

    def _is_own(self, name: str) -> bool:
        """True for a name in the language's own script: CLDR leaves some in English."""
        return self.script == "Latn" or not any("a" <= char <= "z" for char in name.lower())

    @lru_cache  # noqa: B019 - languages live as long as the process
    def pool(self, name: str, split: str) -> tuple[str, ...]:
        """Return the words of one list (``all`` for every list) that the split may show."""
        pools = self.facts["pools"]
        names = {"person": ("first", "last"), "product": ("thing",), "office": ("thing",), "warning": ("sign",)}.get(
            name, (name,)
        )
        every = [word for group in pools.values() for word in group]
        found = every + list(self._far_words) if name == "all" else [w for n in names for w in pools.get(n, ())]
        wanted = split == "heldout"
        kept = tuple(dict.fromkeys(word for word in found if self.is_heldout(word) == wanted))
        if len(kept) >= 3 or name == "all":
            return kept
        return kept + tuple(word for word in self.pool("all", split) if word not in kept and len(word) <= 14)

    @cached_property
    def _next(self) -> dict[str, str]:
        """Letters seen after each pair of letters, from which made-up words are made."""
        out: dict[str, list[str]] = {}
        every = [self.fold(w) for group in self.facts["pools"].values() for w in group] + [
            self.fold(w) for w in self._far_words
        ]
        for word in sorted(set(every)):
            for token in word.split():
                padded = f"^^{token}$"
                for i in range(len(padded) - 2):
                    out.setdefault(padded[i : i + 2], []).append(padded[i + 2])
        return {pair: "".join(letters) for pair, letters in out.items()}

    def pseudo_word(self, rng: Random, split: str, max_chars: int = 12) -> str:
        """Return a made-up word that follows the language's spelling."""
        wanted = split == "heldout"
        least = 4 if self.script in _ALPHABETS else 2
        for _ in range(400):
            word = "^^"
            while word[-1] != "$" and len(word) < max_chars + 3:
                word += rng.choice(self._next[word[-2:]])
            word = word[2:].rstrip("$").strip(_EDGES)
            if least <= len(word) <= max_chars and self._holds_out(word) == wanted:
                return word
        return rng.choice(self.pool("all", split)).split()[0]

    def styled(self, rng: Random, text: str) -> str:
        """Return the text as it is, with a capital, or in capitals."""
        roll = rng.random()
        if not self.has_case or roll < 0.4:
            return text
        return self.first_upper(text) if roll < 0.8 else self.upper(text)

    # --- numbers -------------------------------------------------------------------------

    def digits(self, rng: Random, text: str) -> str:
        """Return the text with the script's own digits in half of the cases, where it has any."""
        own = self.facts.get("digits")
        return (
            text.translate(dict(zip(map(ord, string.digits), own, strict=True))) if own and rng.random() < 0.5 else text
        )

    def decimal(self, value: int | float, places: int) -> str:
        """Return a number with the language's marks.

        >>> language("de").decimal(1234.5, 2)
        '1.234,50'
        """
        text = f"{value:,.{places}f}"
        group, point = self.facts["group"], self.facts["decimal"]
        return "".join({",": group, ".": point}.get(char, char) for char in text)

    def money_way(self, rng: Random) -> Callable[[int], str]:
        """Return how one shop prints cents: sign, marks and digits stay the same on a page."""
        pattern = rng.choice(self._money)
        own = self.facts.get("digits") if rng.random() < 0.4 else None
        bare = rng.random() < 0.35

        def show(cents: int) -> str:
            amount = cents / 100 if self.decimals else round(cents / 100) * 100
            text = self.decimal(abs(amount), self.decimals)
            text = text if bare else pattern.format(text)
            text = text.translate(dict(zip(map(ord, string.digits), own, strict=True))) if own else text
            return f"-{text}" if cents < 0 else text

        return show

    @cached_property
    def _money(self) -> tuple[str, ...]:
        good = tuple(pattern for pattern in self.facts["money"] if self.can_print(pattern.format("")))
        return good or ("{}",)

    def money(self, rng: Random) -> str:
        """Return one amount with its sign."""
        return self.money_way(rng)(rng.randint(5, rng.choice((2000, 20000, 900000))))

    def date(self, rng: Random) -> str:
        """Return a day between 2015 and 2034 in one of the language's ways."""
        return self.date_way(rng)(rng.randint(2015, 2034), rng.randint(1, 12), rng.randint(1, 28))

    def date_way(self, rng: Random) -> Callable[[int, int, int], str]:
        """Return how one page prints ``year, month, day``."""
        pattern = rng.choice(self.facts["dates"])
        own = self.facts.get("digits") if rng.random() < 0.4 else None

        def show(year: int, month: int, day: int) -> str:
            text = pattern.format(y=year, m=month, d=day, month=self._months[month - 1])
            return text.translate(dict(zip(map(ord, string.digits), own, strict=True))) if own else text

        return show

    def time(self, rng: Random) -> str:
        """Return a time of day, 24 hours."""
        return self.digits(rng, f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}")

    def phone(self, rng: Random) -> str:
        """Return a telephone number of digits that no network has (555 01xx and 000)."""
        return self.digits(rng, f"555 01{rng.randint(0, 99):02d} {rng.randint(0, 999):03d}")

    def number(self, rng: Random) -> str:
        """Return something with digits: count, amount, date, time, share, measure or code."""
        roll = rng.randrange(7)
        if roll < 4:
            return (self.money, self.date, self.time, words.code)[roll](rng)
        if roll == 4:
            return self.digits(rng, f"{rng.randint(0, 100)}%")
        if roll == 5:
            return self.digits(
                rng, f"{self.decimal(rng.randint(1, 990) / 10, 1)} {rng.choice(('kg', 'g', 'm', 'cm', 'km'))}"
            )
        return self.digits(rng, self.decimal(rng.randrange(10 ** rng.randint(1, 6)), 0))

    def phrase(self, rng: Random, split: str, min_chars: int = 3, max_chars: int = 28) -> str:
        """Return one line of text of the wanted length."""
        target = rng.randint(min_chars, max_chars)
        joint = "" if self.script in _UNSPACED else " "
        text = ""
        for _ in range(24):
            roll = rng.random()
            if roll < 0.30:
                piece = self.number(rng)
            elif roll < 0.52:
                piece = self.styled(rng, self.pseudo_word(rng, split))
            elif roll < 0.62:
                piece = self.styled(rng, rng.choice(tuple(self.facts["words"].values()) or self.pool("all", split)))
            else:
                piece = self.styled(rng, rng.choice(self.pool("all", split)))
            if not self.can_print(piece):
                continue
            between = joint if not (text and roll < 0.30) else " "
            longer = f"{text}{between}{piece}" if text else piece
            if len(longer) <= max_chars:
                text = longer
            if len(text) >= target:
                break
        return text if len(text) >= min_chars else words.code(rng)[:max_chars]

    def sentence(self, rng: Random, split: str, key: str, **values: str) -> str:
        """Return a sentence of the bank ``letter`` or ``chat``, or words where it has none."""
        bank = self.facts.get(key)
        if not bank:
            return self.phrase(rng, split, 8, 26)
        return rng.choice(bank[2:] if key == "letter" else bank).format(**values)

    # --- fonts ---------------------------------------------------------------------------

    @cached_property
    def letters(self) -> str:
        """Every character that a font must have before it may print this language."""
        facts = self.facts
        own = [*facts["words"].values(), *facts["colours"].values(), *facts["shapes"].values(), *self._months]
        own += [word for group in facts["pools"].values() for word in group] + [facts.get("digits", "")]
        own += [*facts.get("letter", []), *facts.get("chat", [])]
        text = "".join(own)
        text += self.upper(text) if self.has_case else ""
        return "".join(sorted((set(text) | set(_EVERYWHERE)) - set("{}\u200c\u200d") - _NEVER))

    def fonts(self, split: str, styles: tuple[str, ...] = ()) -> tuple[Font, ...]:
        """Return the fonts of a split, of the given styles where it has any of them.

        Raises:
            NeedsExtra: the fonts of the language are not installed.
            DataError: a font of the system is missing, or the split has none for it.
        """
        try:
            mine = fonts_for(self.script, frozenset(self.letters), split)
        except NeedsExtra as error:
            raise NeedsExtra(f"{self.name} ('{self.code}', {error.what})", error.extra) from None
        except DataError as error:
            raise DataError(f"{self.name} ('{self.code}') cannot be drawn: {error}") from None
        return tuple(font for font in mine if font.style in styles) or mine

    def can_print(self, text: str) -> bool:
        """True where every font of training has every character."""
        return all(self._printable(char) for char in text)

    @lru_cache(maxsize=4096)  # noqa: B019
    def _printable(self, char: str) -> bool:
        one = frozenset(char)
        every = self.fonts("train")
        return all(has_letters(font, one) for font in every)

    # --- questions -----------------------------------------------------------------------

    def ask(self, rng: Random, task: str, key: str, answer: str, **names: str) -> Turn:
        """Return a turn with one of the language's wordings for ``key``, its names filled in."""
        question = rng.choice(self.wordings(key)).format(**names, **self._fillers)
        return Turn(
            task=task, question=question[:1].upper() + question[1:] if self.tier == "A" else question, answer=answer
        )

    @lru_cache  # noqa: B019
    def wordings(self, key: str) -> Sequence[str]:
        """Return the ways to ask: sentences in tier A, fixed forms in tier B."""
        own = self.facts["questions"].get(key)
        if own:
            return tuple(own)
        if key not in _FIXED:
            raise DataError(f"no question '{key}'{did_you_mean(key, _FIXED)}")
        return _FIXED[key]

    @cached_property
    def _fillers(self) -> dict[str, str]:
        fillers = {f"w_{key}": value for key, value in self.facts["words"].items() if " " not in key}
        return fillers | {"yes": self.word("yes"), "no": self.word("no")}

    def yes(self, is_so: bool) -> str:
        """Return the language's yes or no."""
        return self.word("yes" if is_so else "no")

    def thing(self, shape: str, colour: str | None, *, way: str = "the") -> str:
        """Return a noun phrase such as ``the red circle`` (``way`` the, a, or many)."""
        noun = self.facts.get("nouns", {}).get(shape)
        if noun is None:
            return f"{self.shapes[shape]} ({self.colours[colour]})" if colour else self.shapes[shape]
        if way == "many":
            return str(noun["many"])
        adjectives = self.facts["adjectives"]
        form = ""
        if colour:
            forms = adjectives[colour]
            form = forms["d"] if way == "the" and "d" in forms else forms[noun["gender"]]
        return " ".join(noun[way].format(c=form).split())


class English(Language):
    """English, whose words are the lists of ``words``."""

    @lru_cache  # noqa: B019
    def pool(self, name: str, split: str) -> tuple[str, ...]:
        """Return the words of one list that the split may show."""
        names = {"thing": "product", "first": "person", "last": "person", "city": "place", "sign": "warning"}
        return words.pool(names.get(name, name), split)

    def is_heldout(self, text: str) -> bool:
        """True where one of the words is held out."""
        return any(words.is_heldout(token) for token in self._tokens(text))

    def pseudo_word(self, rng: Random, split: str, max_chars: int = 12) -> str:
        """Return a made-up English-looking word."""
        return words.pseudo_word(rng, split, max_chars)

    def phrase(self, rng: Random, split: str, min_chars: int = 3, max_chars: int = 28) -> str:
        """Return one line of text."""
        return words.phrase(rng, split, min_chars, max_chars)

    def date(self, rng: Random) -> str:
        """Return a day in one of nine ways."""
        return words.date(rng)

    def time(self, rng: Random) -> str:
        """Return a time of day."""
        return words.time(rng)

    def fonts(self, split: str, styles: tuple[str, ...] = ()) -> tuple[Font, ...]:
        """Return the fonts of a split."""
        return fonts_of(split, styles)

    def can_print(self, text: str) -> bool:
        """True for the characters that every font of English has."""
        return all(char in _ENGLISH for char in text)

    @cached_property
    def _months(self) -> tuple[str, ...]:
        return (
            "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
            "November", "December",
        )  # fmt: skip


_ENGLISH = frozenset("".join(map(chr, range(32, 127))) + "€£°–éüßñ")
_EDGES = string.punctuation + "«»„“”‘’¿¡؟،。？！·։՞–—…"
_NUMERIC = set(string.digits)
_NEVER = set("☐◐↔“”„«»‘’؟。？！՞։¿¡")


def _clean(text: str) -> str:
    """Return the text composed, with plain blanks and without invisible marks."""
    text = unicodedata.normalize("NFC", text).replace("\u00a0", " ").replace("\u202f", " ").replace("’", "'")
    return "".join(char for char in text if unicodedata.category(char) != "Cf" or char in "\u200c\u200d").strip()


@lru_cache
def _locale(name: str) -> Any:
    try:
        from babel import Locale
    except ImportError:
        raise NeedsExtra("languages beside English (babel)", "data") from None
    return Locale.parse(name)


@lru_cache
def language(code: str) -> Language:
    """Return a language by its code.

    Raises:
        DataError: an unknown code.
        NeedsExtra: Babel is missing.
    """
    if code not in LANGUAGES:
        raise DataError(f"unknown language '{code}'{did_you_mean(code, LANGUAGES)}")
    facts = json.loads((FOLDER / f"{code}.json").read_text(encoding="utf-8"))
    return English(facts) if code == "en" else Language(facts)
