"""Grades of free answers: reading a grader's reply, and the rule that stands in where there is no grader.

Boundary: text in, numbers out. A rule grade is repeatable and free; it is no measure of the same thing as a
grader's, and is labelled wherever it is shown.
"""

import re
from collections.abc import Sequence

from handlens.eval.scorers.vqa import normalise_kit

LONGEST = 20_000
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


def read_pair(reply: str) -> tuple[float, float] | None:
    """Return two grades from 1 to 10 of the first line, reference first; None where they are not there.

    >>> read_pair("8, 9" + chr(10) + "because"), read_pair("I like both")
    ((8.0, 9.0), None)
    """
    parts = reply.strip().split("\n")[0].replace(",", " ").split()
    try:
        grades = [float(part) for part in parts]
    except ValueError:
        return None
    return (grades[0], grades[1]) if len(grades) == 2 and all(0 <= grade <= 10 for grade in grades) else None


def read_tenth(reply: str) -> float | None:
    """Return a grade from 0 to 1 (MM-Vet); None where the reply is no such number."""
    try:
        grade = float(reply.strip())
    except ValueError:
        return None
    return grade if 0 <= grade <= 1 else None


def read_rating(reply: str, highest: int) -> int | None:
    """Return the number after 'rating' or the only whole number up to ``highest`` (MMHal); None where unclear."""
    found = re.findall(r"rating:?\s*\**(\d+)", reply.lower()) or re.findall(r"\b(\d+)\b", reply)
    grades = {int(grade) for grade in found if len(grade) < 4}
    return grades.pop() if len(grades) == 1 and max(grades) <= highest else None


def holds_parts(answer: str, truth: str) -> float:
    """Return the share of a truth's ``<AND>`` parts that stand in the answer; one of its ``<OR>`` parts is enough.

    >>> holds_parts("x = -1", "-1<AND>-5"), holds_parts("x is 5", "5<OR>five")
    (0.5, 1.0)
    """
    said = f" {normalise_kit(answer[-LONGEST:])} "

    def stands(part: str) -> bool:
        wanted = normalise_kit(part)
        return bool(wanted) and (f" {wanted} " in said or (_CJK.search(wanted) is not None and wanted in said))

    return max(
        (sum(map(stands, option.split("<AND>"))) / len(option.split("<AND>")) for option in truth.split("<OR>")),
        default=0.0,
    )


def words_of(text: str) -> list[str]:
    """Return lower-case words; each letter of a script without spaces is a word."""
    spaced = _CJK.sub(lambda found: f" {found.group()} ", text[:LONGEST].lower())
    return re.findall(r"\w+", spaced)


def overlap(answer: str, reference: str) -> float:
    """Return F1 of the words that two texts share, each as often as it stands there.

    >>> overlap("a red car", "the red car")
    0.6666666666666666
    """
    one, two = words_of(answer), words_of(reference)
    shared = sum(min(one.count(word), two.count(word)) for word in set(one) & set(two))
    return 2 * shared / (len(one) + len(two)) if shared else 0.0


def best_overlap(answer: str, references: Sequence[str]) -> float:
    """Return the largest overlap."""
    return max((overlap(answer, reference) for reference in references), default=0.0)
