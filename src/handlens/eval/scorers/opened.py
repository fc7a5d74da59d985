"""Open answers with a number or a short text: MMMU's open questions and MathVista's typed comparison.

Boundary: text in, right or wrong out. MathVista's extraction by a grader is in ``grader``; here is its rule form.

Sources: MMMU evaluation code (arXiv 2311.16502); MathVista (arXiv 2310.02255) and VLMEvalKit's comparison.
"""

import re
from collections.abc import Sequence

from handlens.eval.scorers import edit_distance
from handlens.eval.scorers.choice import infer_option

_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:[eE][+-]?\d+)?|-?\.\d+")
LONGEST = 20_000
"""Characters of a run-away answer that are looked at; its end is kept, because an answer ends with its result."""

Value = str | float


def comparable(text: str) -> list[Value]:
    """Return a number rounded to 2 places, or lower-case text; a single letter only with a space beside it.

    >>> comparable("1,234.567"), comparable("X")
    ([1234.57], [' x', 'x '])
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        pass
    low = text.lower()
    return [" " + low, low + " "] if len(low) == 1 else [low]


def parse_open(answer: str) -> set[Value]:
    """Return every text and number that an open answer may mean: what follows 'is', 'answer', '=' and so on."""
    keys = _key_parts(answer[-LONGEST:])
    found = [*keys, *(number for key in keys for pattern in _NUMBERS for number in re.findall(pattern, key))]
    return {value for text in found for value in comparable(text)}


def _key_parts(answer: str) -> list[str]:
    answer = answer.strip().strip(".").lower()
    parts = answer.split("\n")  # the official split at capitals never acts: the text is lower case by then
    keys = []
    for place, part in enumerate(parts):
        indicators = (*_INDICATORS, "=") if place == len(parts) - 1 else _INDICATORS
        tails = [part.split(indicator)[-1].strip() for indicator in indicators if indicator in part]
        # An empty tail counts as none: the official loop starts again after it.
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            keys.append(shortest)
    return keys or [answer]


def is_open_right(answer: str, truths: Sequence[str]) -> bool:
    """True when a number equals a truth, or the text of a truth stands in a part of the answer (MMMU).

    >>> is_open_right("Therefore the area is 12.50 cm", ["12.5"])
    True
    """
    wanted = [value for truth in truths for value in comparable(truth)]
    for given in parse_open(answer):
        if isinstance(given, str):
            if any(isinstance(value, str) and value in given for value in wanted):
                return True
        elif given in wanted:
            return True
    return False


def extract_value(answer: str, answer_type: str) -> str:
    """Return the last number (integer, float), the last list, or the whole text: the rule form of MathVista's reader.

    >>> extract_value("There are 3 cats and 12 dogs, so 15.", "integer")
    '15'
    """
    answer = answer.strip()[-LONGEST:]
    if answer_type in ("integer", "float"):
        found = _NUMBER.findall(answer)
        return found[-1].replace(",", "").rstrip(".") if found else ""
    if answer_type == "list":
        lists = re.findall(r"\[[^\[\]]*\]", answer)
        return lists[-1] if lists else answer
    quoted = re.search(r'The answer is "(.*)"\.', answer)
    return quoted.group(1) if quoted else answer


def is_value_right(
    extracted: str, answer: str, *, question_type: str, answer_type: str, choices: Sequence[str] = (), option: str = ""
) -> bool:
    """True as VLMEvalKit compares MathVista: the option, or the value as its type; the answer's text as it stands."""
    if question_type == "multi_choice":
        return infer_option(extracted, {chr(65 + place): text for place, text in enumerate(choices)}) == option
    try:
        if answer_type == "integer":
            return int(extracted) == int(answer)
        if answer_type == "float":
            return float(extracted) == float(answer)
    except (ValueError, OverflowError):
        return False
    return extracted == answer


def normalise_value(
    extracted: str, *, question_type: str, answer_type: str, choices: Sequence[str] = (), precision: int = 0
) -> str | None:
    """Return a value as MathVista's own code normalises it: the option's text, or the number at its precision."""
    if question_type == "multi_choice":
        extracted = extracted.strip()
        letters = re.findall(r"\(([a-zA-Z])\)", extracted)
        extracted = letters[0].upper() if letters else extracted
        names = [chr(65 + place) for place in range(len(choices))]
        if extracted in names:
            return choices[names.index(extracted)]
        return min(choices, key=lambda choice: edit_distance(extracted[:LONGEST], choice))
    try:
        if answer_type == "integer":
            return str(int(float(extracted)))
        if answer_type == "float":
            return str(round(float(extracted), precision))
    except (ValueError, OverflowError):
        return None
    return extracted


def is_official_value_right(
    extracted: str,
    answer: str,
    *,
    question_type: str,
    answer_type: str,
    choices: Sequence[str] = (),
    precision: int = 0,
) -> bool:
    """True as MathVista's own code compares; ``answer`` of a choice is its text."""
    value = normalise_value(
        extracted, question_type=question_type, answer_type=answer_type, choices=choices, precision=precision
    )
    return str(value).strip() == answer.strip()
