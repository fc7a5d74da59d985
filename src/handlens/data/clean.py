"""Leave out what does no good: each sample passes a row of rules, and the first that it breaks is counted.

Boundary: samples in, kept samples and a tally out; nothing is lost without a reason that is written down.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from handlens.answerer import Answerer, Seen
from handlens.core.chat import Turn
from handlens.core.images import Picture
from handlens.data.convert import Tally
from handlens.data.identify import identify
from handlens.data.likeness import Neighbours, PictureHash, hash_picture
from handlens.data.samples import Damage, Found, Sample, said
from handlens.errors import DataError, HandlensError, NeedsExtra

TRANSPARENT = ("\u200b", "\ufeff", "\u00ad")
"""Characters without ink that come with text from the web."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a sample has to be; None or an empty tuple switches a rule off."""

    min_side_px: int = 16
    max_pixels: int = 100_000_000
    max_aspect: float = 30.0
    """Long side over short side."""
    min_chars: int = 1
    """Of all answers together."""
    max_chars: int = 20_000
    max_repeats: float = 0.6
    """Largest share of words that repeat one before, in answers of 20 words or more."""
    languages: tuple[str, ...] = ()
    """Tags that are kept; short texts, which nobody can tell, are kept too."""
    min_language_score: float = 0.5
    min_correlation: float | None = None
    """Nats a character that the picture has to add; needs a scorer."""
    num_images: tuple[int, int] = (0, 1000)
    """Fewest and most pictures, as the format that is written can hold them."""
    repairs: bool = True
    finds_near: bool = True
    """False: only exact duplicates are left out."""


@runtime_checkable
class Scorer(Protocol):
    """How much the picture and the words of a sample belong together; more is better."""

    def __call__(self, sample: Sample, pictures: list[Picture]) -> float:
        """Return nats a character."""
        ...


@dataclass(frozen=True, kw_only=True)
class LikelihoodRatio:
    """The built-in scorer: how much likelier the answers become when the model sees the picture.

    For each answer, log-probability after the question with the picture minus that without, over all characters.
    """

    answerer: Answerer

    def __call__(self, sample: Sample, pictures: list[Picture]) -> float:
        """Return nats a character; 0 where there is nothing to say or to see."""
        if not pictures or not "".join(sample.answers):
            return 0.0
        seen, blind = self.answerer.see(pictures), Seen(pictures=())
        gain, chars = 0.0, 0
        for place, turn in enumerate(sample.chat):
            if turn.role == "assistant" and said(turn):
                before = sample.chat[:place]
                words = tuple(Turn(earlier.role, (said(earlier) or " ",)) for earlier in before)
                (with_picture,) = self.answerer.score(before, seen, [said(turn)])
                (without,) = self.answerer.score(words, blind, [said(turn)])
                gain += with_picture - without
                chars += len(said(turn))
        return gain / chars


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A sample after the rules that look at it alone."""

    key: str
    sample: Sample | None
    reason: str = ""
    """Why it is left out; empty when it is kept."""
    hashes: tuple[PictureHash, ...] = ()
    was_repaired: bool = False
    correlation: float | None = None


@dataclass
class Cleaning:
    """What became of every sample."""

    tally: Tally = field(default_factory=Tally)
    repaired: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    correlations: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return all counts as plain JSON."""
        row = self.tally.to_json() | {"repaired": self.repaired}
        if self.correlations:
            ordered = sorted(self.correlations)
            row["correlation"] = {
                f"p{share}": round(ordered[min(len(ordered) * share // 100, len(ordered) - 1)], 5)
                for share in (5, 25, 50, 75, 95)
            }
        return row


Map = Callable[[Callable[[Found], Examined], Iterable[Found]], Iterator[Examined]]
"""How samples are examined: in turn, or on many workers; the order stays."""


def clean(
    found: Iterable[Found],
    rules: Rules,
    cleaning: Cleaning,
    *,
    scorer: Scorer | None = None,
    spread: Map = map,
    dropped: Callable[[str, str], None] = lambda key, reason: None,
) -> Iterator[Sample]:
    """Yield what is kept, repaired; ``cleaning`` counts the rest, and ``dropped`` hears of each (key, reason)."""
    earlier = Neighbours()
    for seen in spread(partial(examine, rules=rules, scorer=scorer), found):
        cleaning.tally.read += 1
        reason = seen.reason
        if seen.sample is not None and not reason:
            reason = _repeat(seen, seen.sample, earlier, rules)
        if seen.correlation is not None:
            cleaning.correlations.append(seen.correlation)
        if reason or seen.sample is None:
            cleaning.tally.drop(reason, seen.key)
            dropped(seen.key, reason)
            continue
        cleaning.repaired += seen.was_repaired
        cleaning.tally.written += 1
        yield seen.sample


def examine(item: Found, rules: Rules, scorer: Scorer | None = None) -> Examined:
    """Return what the rules for a single sample say; a pure function, so any worker may run it."""
    if isinstance(item, Damage):
        return Examined(key=item.where, sample=None, reason=item.fault.kind)
    if item.faults:
        return Examined(key=item.key, sample=None, reason=item.faults[0].kind)
    try:
        pictures = [_open(image) for image in item.images]
    except DataError:
        return Examined(key=item.key, sample=None, reason="missing-image")
    except HandlensError:
        return Examined(key=item.key, sample=None, reason="corrupt-image")
    sample = repair(item) if rules.repairs else item
    reason = next((reason for rule in RULES if (reason := rule(sample, pictures, rules))), "")
    correlation = None
    if not reason and scorer is not None:
        correlation = scorer(sample, pictures)
        if rules.min_correlation is not None and correlation < rules.min_correlation:
            reason = "weak-correlation"
    return Examined(
        key=item.key, sample=sample, reason=reason, was_repaired=sample != item, correlation=correlation,
        hashes=() if reason else tuple(hash_picture(picture.image) for picture in pictures),
    )  # fmt: skip


def repair(sample: Sample) -> Sample:
    """Return a sample whose text is what its writer meant: right alphabet, NFC, no invisible characters."""
    chat = tuple(
        Turn(turn.role, tuple(repair_text(part) if isinstance(part, str) else part for part in turn.content))
        for turn in sample.chat
    )
    return replace(sample, chat=chat)


def repair_text(text: str) -> str:
    r"""Return text with what was broken on its way put right; right text comes back as it is.

    >>> repair_text("un cafÃ©  chaud \n")
    'un café chaud'

    Raises:
        NeedsExtra: ftfy is missing.
    """
    try:
        from ftfy import TextFixerConfig, fix_text
    except ImportError:
        raise NeedsExtra("text repair (ftfy)", "data") from None
    # curly quotes and wide characters are no damage: they are what was printed
    config = TextFixerConfig(uncurl_quotes=False, fix_character_width=False, fix_latin_ligatures=False)
    fixed = fix_text(text, config)
    for char in TRANSPARENT:
        fixed = fixed.replace(char, "")
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in fixed.splitlines()).strip()


Rule = Callable[[Sample, list[Picture], Rules], str]


def too_small(sample: Sample, pictures: list[Picture], rules: Rules) -> str:
    """A side of a picture is too short."""
    return "too-small" if any(min(picture.image.size) < rules.min_side_px for picture in pictures) else ""


def too_long_and_thin(sample: Sample, pictures: list[Picture], rules: Rules) -> str:
    """One side of a picture is many times the other."""
    sizes = [picture.image.size for picture in pictures]
    return "aspect" if any(max(size) > rules.max_aspect * min(size) for size in sizes) else ""


def wrong_length(sample: Sample, pictures: list[Picture], rules: Rules) -> str:
    """The answers say too little or too much."""
    if not sample.chat and pictures:
        return ""  # a plain picture without words
    count = len("".join(sample.answers))
    return "too-short-text" if count < rules.min_chars else "too-long-text" if count > rules.max_chars else ""


def repeats_itself(sample: Sample, pictures: list[Picture], rules: Rules) -> str:
    """Most words of an answer stood in it before."""
    for answer in sample.answers:
        words = answer.casefold().split()
        if len(words) >= 20 and 1 - len(set(words)) / len(words) > rules.max_repeats:
            return "repeats-itself"
    return ""


def other_language(sample: Sample, pictures: list[Picture], rules: Rules) -> str:
    """The language is known and not wanted."""
    if not rules.languages:
        return ""
    found = identify(" ".join(sample.answers))
    unsure = found.tag == "und" or found.score < rules.min_language_score
    return "" if unsure or found.tag in rules.languages else "language"


def wrong_number(sample: Sample, pictures: list[Picture], rules: Rules) -> str:
    """There are more or fewer pictures than can be written."""
    return "" if rules.num_images[0] <= len(pictures) <= rules.num_images[1] else "number-of-pictures"


RULES: tuple[Rule, ...] = (wrong_number, too_small, too_long_and_thin, wrong_length, repeats_itself, other_language)
"""The cheap ones first."""


def _open(image: Any) -> Picture:
    return image.open()


def _repeat(seen: Examined, sample: Sample, earlier: Neighbours, rules: Rules) -> str:
    again = earlier.find(seen.hashes, sample.text)
    if again is not None and (again[1] or rules.finds_near):
        return "duplicate" if again[1] else "near-duplicate"
    earlier.add(sample.key, seen.hashes, sample.text)
    return ""
