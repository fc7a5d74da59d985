"""Divide an answer into claims: statements that are true or false of the picture, each readable on its own.

Boundary: text in, claims out; sees no picture. ``judge.py`` decides whether a claim is true.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "empty", "no_claim", "unread"]
"""ok; the answer holds no text; it holds text but nothing to check; the splitter's replies could not be used."""

VERSION = "2"
"""Of the rules below; written into journals, so that claims of different rules are never mixed."""
LONGEST = 300
"""Words of an answer that are divided, as in RLAIF-V; the rest is told as lost."""

_COLOURS = "red green blue yellow orange purple black white brown pink gray grey"
_SHAPES = "circle square triangle star heart diamond cross ring"
_THING = re.compile(
    rf"(?:an?|one|the)\s+(?:(?P<size>small|large)\s+)?(?P<colour>{_COLOURS.replace(' ', '|')})\s+"
    rf"(?P<shape>{_SHAPES.replace(' ', '|')})"
    r"(?:\s+(?:(?:is|stands|lies)\s+)?(?:at|in|on)\s+the\s+"
    r"(?P<place>(?:top|bottom)(?:\s+(?:left|right))?|left|right|center|centre|middle))?",
    re.IGNORECASE,
)
_NAME = re.compile(rf"\b({_COLOURS.replace(' ', '|')})\s+({_SHAPES.replace(' ', '|')})\b", re.IGNORECASE)
_JOINTS = re.compile(
    r"(?:\s*[,;.]\s*(?:and\s+)?|\s+and\s+|^\s*(?:there\s+(?:is|are)|i\s+(?:can\s+)?see)\s+|\s*$)", re.I
)
_SENTENCE = re.compile(r"(?<=[.!?。！？])[\"”')]*\s+(?=\S)|\n+|(?<=[。！？])")
_BULLET = re.compile(r"\s*(?:[-*•]\s+|\d{1,2}[.)]\s+)?")
_LETTER = re.compile(r"\w")
_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_OPINION = re.compile(
    r"\b(?:i\s+(?:think|believe|guess|feel|hope|would|am\s+(?:sorry|sure|not\s+sure))|in\s+my\s+(?:opinion|view)|"
    r"perhaps|maybe|probably|possibly|presumably|apparently|(?:seems?|appears?)\s+(?:to|like|that)|might|"
    r"could\s+be|may\s+be|beautiful\w*|lovely|nice|charming|pretty|ugly|amazing|wonderful|great|delicious|cozy|"
    r"pleasant|peaceful|cheerful|inviting|adds?\s+to\s+the|overall|atmosphere|sense\s+of|feeling)\b",
    re.IGNORECASE,
)
_NO_CLAIM = re.compile(
    r"^(?:sure|of\s+course|certainly|hello|hi|thanks?|thank\s+you|you'?re\s+welcome|okay|ok|here\s+(?:is|are)\b.*:|"
    r"let\s+me\b.*|please\b.*|feel\s+free\b.*|sorry\b.*)[\s,.!:]*$",
    re.IGNORECASE | re.DOTALL,
)
_AUXILIARY = r"is|are|was|were|has|have|can|does|do"
_SENTENCE_OPENS = re.compile(r"(?:there|it|he|she|they|this|that|the|an?|these|those)\s", re.IGNORECASE)
_HAS_VERB = re.compile(rf"\s(?:{_AUXILIARY}|says|reads|shows|stands|costs|holds|wears|contains)\s")
_COLOUR_OF = re.compile(
    r"^(?:(?:what|which)\s+colou?r\s+is\s+the\s+(?P<is>.+?)|what\s+is\s+the\s+colou?r\s+of\s+the\s+(?P<of>.+?)|"
    r"name\s+the\s+colou?r\s+of\s+the\s+(?P<name>.+?)|the\s+(?P<has>.+?)\s+has\s+which\s+colou?r)[?.]*$",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"^(?:what|which)\s+(?P<be>is|are|was|were)\s+(?P<what>(?:the|its|their)\s+.+?)\?*$", re.IGNORECASE)
_COUNT = re.compile(
    r"^(?:how\s+many\s+(?P<many>.+?)\s+(?:are\s+there|do\s+you\s+see|are\s+in\s+the\s+picture|can\s+you\s+find)|"
    r"count\s+the\s+(?P<count>.+?)|what\s+is\s+the\s+number\s+of\s+(?P<number>.+?))[?.]*$",
    re.IGNORECASE,
)
_WHERE = re.compile(r"^where\s+(?P<be>is|are)\s+(?P<what>.+?)\?*$", re.IGNORECASE)
_EXISTS = re.compile(
    r"^(?:is\s+there|do\s+you\s+see|can\s+you\s+find|does\s+the\s+picture\s+show)\s+(?P<what>.+?)"
    r"(?:\s+in\s+the\s+picture)?\?*$",
    re.IGNORECASE,
)
_YES_NO = re.compile(rf"^(?:{_AUXILIARY})\s", re.IGNORECASE)
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_SMALL_WORDS = frozenset(
    "a an the is are was were be there this that these those it its he she they them his her their and or but of in on "
    "at to by with from for as which who into has have had do does did not no yes picture image shows show shown text "
    "answer question number i see can you here also what where how many".split()
)


@dataclass(frozen=True)
class Claim:
    """One statement, and the characters of the answer that it came from."""

    text: str
    start: int = 0
    end: int = 0


@dataclass(frozen=True, kw_only=True)
class Division:
    """What became of one answer; nothing of it vanishes without a place in ``dropped`` or ``lost``."""

    claims: tuple[Claim, ...]
    dropped: tuple[str, ...] = ()
    """Opinions, guesses, greetings, questions: parts that no picture can prove wrong."""
    lost: tuple[str, ...] = ()
    """Words of the kept parts that no claim holds."""
    added: tuple[str, ...] = ()
    """Words of claims that neither the answer nor the question holds."""
    status: Status = "ok"
    note: str = ""


def divide(question: str, answer: str) -> Division:
    """Return the claims of an answer, by rules that fit short answers, lists of shapes, and printed text.

    A thing that is named again, with "a" and not with "the", also claims that there are so many of it.

    >>> [claim.text for claim in divide("What do you see?", "A red circle at the top.").claims]
    ['There is a red circle.', 'There is a red circle at the top.']
    """
    if not answer.strip():
        return Division(claims=(), status="empty", note="the answer holds no text")
    claims: list[Claim] = []
    dropped: list[str] = []
    kept: list[str] = []
    parts, words = _parts(answer), 0
    for start, end in parts:
        part = answer[start:end]
        if not is_claim(part):
            dropped.append(part)
            continue
        kept.append(part)
        words += len(part.split())
        if words <= LONGEST or len(kept) == 1:
            stated = _statements(question, part, is_whole=len(parts) == 1)
            claims += [Claim(text, start + first, start + last) for text, first, last in stated]
    unique = tuple({claim.text.casefold(): claim for claim in reversed(claims)}.values())[::-1]
    lost, added = coverage(question, " ".join(kept), [claim.text for claim in unique])
    unique += _of_repeats(answer, parts)
    if not unique:
        note = "the answer states nothing that a picture can prove wrong"
        return Division(claims=(), dropped=tuple(dropped), status="no_claim", note=note)
    return Division(claims=unique, dropped=tuple(dropped), lost=lost, added=added)


def _of_repeats(answer: str, parts: Sequence[tuple[int, int]]) -> tuple[Claim, ...]:
    """Return what an answer states by naming the same thing again: that there are at least so many of it."""
    claims: list[Claim] = []
    num_named: Counter[tuple[str, str]] = Counter()
    for start, end in parts:
        if not is_claim(answer[start:end]):
            continue
        for match in _THING.finditer(answer, start, end):
            if match[0][:3].lower() == "the":  # the same one again
                continue
            thing = (match["colour"].lower(), match["shape"].lower())
            num_named[thing] += 1
            if (count := num_named[thing]) > 1:
                many = f"There are at least {count} {thing[0]} {plural(thing[1])}."
                claims.append(Claim(many, match.start(), match.end()))
    return tuple(claims)


def coverage(question: str, answer: str, claims: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words of the answer that no claim holds, and those of claims that have no origin.

    Words of grammar do not count; numbers, names and things do. Number words and plurals are equal to their digits
    and singulars.

    >>> coverage("What is it?", "A red ring and 2 stars.", ["There is a red ring.", "There is a blue ring."])
    (('2', 'stars'), ('blue',))
    """
    origin = {_fold(word) for word in _WORD.findall(f"{question} {answer}")}
    held = {_fold(word) for claim in claims for word in _WORD.findall(claim)}
    lost = [word for word in _WORD.findall(answer) if _counts(word) and _fold(word) not in held]
    added = [word for claim in claims for word in _WORD.findall(claim) if _counts(word) and _fold(word) not in origin]
    return tuple(dict.fromkeys(lost)), tuple(dict.fromkeys(added))


def plural(shape: str) -> str:
    """Return the plural of a shape.

    >>> plural("cross"), plural("ring")
    ('crosses', 'rings')
    """
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def named_things(text: str) -> list[tuple[str, str]]:
    """Return every coloured shape that a text names, in order, as often as it names it.

    >>> named_things("A small red ring, a red ring and one blue star.")
    [('red', 'ring'), ('red', 'ring'), ('blue', 'star')]
    """
    return [(colour.lower(), shape.lower()) for colour, shape in _NAME.findall(text)]


def is_claim(part: str) -> bool:
    """True for a part that can be true or false of a picture; False for opinions, greetings and questions.

    >>> is_claim("A red ring."), is_claim("It looks like a lovely day, I think."), is_claim("Anything else?")
    (True, False, False)
    """
    bare = part.strip()
    if not _LETTER.search(bare) or _NO_CLAIM.match(bare):
        return False
    # Printed text may hold any word: what stands in quotes is never an opinion.
    outside = re.sub(r"[\"“][^\"”]*[\"”]", "", bare)
    return not outside.rstrip().endswith("?") and not _OPINION.search(outside)


def _parts(answer: str) -> list[tuple[int, int]]:
    """Return where sentences, lines and points of a list stand, without their bullets."""
    spans, start = [], 0
    for first, last in [*(match.span() for match in _SENTENCE.finditer(answer)), (len(answer), len(answer))]:
        begin = start + len(_BULLET.match(answer[start:first])[0])  # type: ignore[index]
        end = start + len(answer[start:first].rstrip())
        if begin < end:
            spans.append((begin, end))
        start = last
    return spans


def _statements(question: str, part: str, *, is_whole: bool) -> list[tuple[str, int, int]]:
    """Return what one part states, and where in the part."""
    things = list(_THING.finditer(part))
    if things and not _JOINTS.sub("", _THING.sub("\0", part)).strip("\0 "):
        return [(text, *match.span()) for match in things for text in _of_thing(match)]
    bare = part.strip().rstrip(".!。！")
    return [(_as_statement(question.strip(), bare, is_whole=is_whole), 0, len(part))]


def _as_statement(question: str, bare: str, *, is_whole: bool) -> str:
    """Return one part as a statement that can be read without the others."""
    if is_whole and (told := _short_answer(question, bare)):
        return told
    if _SENTENCE_OPENS.match(bare) and _HAS_VERB.search(f" {bare} "):
        return f"{_first_upper(bare)}."
    return f"The answer to “{question}” is “{bare}”." if is_whole else f"The picture shows the text “{bare}”."


def _of_thing(match: re.Match[str]) -> list[str]:
    """Return what is said about one shape: that it is there, its size, its place."""
    size, colour, shape, place = (match.group(name) for name in ("size", "colour", "shape", "place"))
    colour, shape = colour.lower(), shape.lower()
    texts = [f"There is {'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}."]
    if size:
        texts.append(f"There is a {size.lower()} {colour} {shape}.")
    if place:
        texts.append(f"{texts[0][:-1]} at the {' '.join(place.lower().split())}.")
    return texts


def _short_answer(question: str, said: str) -> str | None:
    """Return question and answer as one statement; None where the form of the question is not known."""
    word = said.strip(" ,.").casefold()
    if len(said.split()) > 12:
        return None
    if word in ("yes", "no"):
        if match := _EXISTS.match(question):
            return f"There is {match['what']}." if word == "yes" else f"There is no {_without_article(match['what'])}."
        return f"The answer to “{question}” is “{word}”." if _YES_NO.match(question) else None
    if match := _COUNT.match(question):
        what = match["many"] or match["count"] or match["number"]
        number = said.split()[0]
        is_number = number.isdigit() or number.casefold() in _NUMBERS
        return f"The number of {what} is {said}." if is_number and len(said.split()) == 1 else None
    if re.search(rf"\b(?:{_AUXILIARY})\b", said):
        return None
    if match := _WHERE.match(question):
        return f"{_first_upper(match['what'])} {match['be']} at the {said}."
    if match := _COLOUR_OF.match(question):
        return f"The {match['is'] or match['of'] or match['name'] or match['has']} is {said}."
    if match := _ABOUT.match(question):
        return f"{_first_upper(match['what'])} {match['be']} {said}."
    return None


def _without_article(what: str) -> str:
    return re.sub(r"^(?:an?|any)\s+", "", what, flags=re.IGNORECASE)


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _counts(word: str) -> bool:
    return word.casefold() not in _SMALL_WORDS


def _fold(word: str) -> str:
    """Return the form in which words are compared."""
    word = word.casefold()
    if word in _NUMBERS:
        return str(_NUMBERS.index(word))
    if len(word) > 3 and word.endswith("es") and word[:-2].endswith(("s", "x", "ch", "sh")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
