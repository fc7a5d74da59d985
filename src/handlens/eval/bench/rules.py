"""How answers to Handlens-Bench are marked: six rules, the same for every model.

Boundary: text in, a share of 0 to 1 out. A model that talks in sentences is not punished: a short answer may stand
in a sentence of moderate length. One that names everything is.
"""

import re
import unicodedata

from handlens.eval.scorers import edit_distance
from handlens.eval.scorers.vqa import spell_digits
from handlens.eval.scorers.yesno import infer_yes_no

LONGEST_SENTENCE = 160
"""Characters beyond the truth that a short answer may have around it."""
_REFUSALS = re.compile(
    r"\bnot (?:present|shown|there|visible|given|printed|mentioned|listed|available|specified|stated|found|included|"
    r"provided|in the (?:picture|image))\b|\bno such\b|\bthere (?:is|are) no\b|"
    r"\b(?:is|are)n['’]?t (?:any|shown|there|printed|present|visible|given|mentioned|listed)\b|"
    r"\b(?:does|do)(?: not|n['’]?t) (?:contain|show|have|include|mention|appear|list|exist|say|specify)\b|"
    r"\b(?:can ?not|can['’]?t|could not) (?:be )?(?:find|found|see|seen|determined?|tell|answer(?:ed)?|read)\b|"
    r"^(?:none|n/?a|unknown|missing|absent|nothing|no)\W*$"
)


def fold(text: str) -> str:
    """Return text with one form for each character, single spaces, no case and no period at its end.

    >>> fold(" The  Total: ４２. ")
    'the total: 42'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".。 ")


def mark_text(answer: str, truth: str) -> float:
    """Return 1 minus the character error rate; line breaks count as spaces, case counts."""
    one, two = (" ".join(unicodedata.normalize("NFKC", text).split()) for text in (truth, answer))
    if not one or len(two) > 2 * len(one) + 40:  # as many edits as characters, at least
        return 0.0
    return max(0.0, 1 - edit_distance(one, two) / len(one))


def mark_short(answer: str, truth: str) -> float:
    """Return 1 where the answer is the truth, or a sentence that holds it between the ends of words.

    >>> mark_short("The total is 23.50.", "23.50"), mark_short("123.50", "23.50")
    (1.0, 0.0)
    """
    said, wanted = fold(answer), fold(truth)
    if said == wanted:
        return 1.0
    if not wanted or len(said) > len(wanted) + LONGEST_SENTENCE:
        return 0.0
    if re.search(r"[\u3040-\u30ff\u3400-\u9fff]", wanted):
        return float(wanted in said)
    return float(re.search(rf"(?<![\w.,]){re.escape(wanted)}(?!\w|[.,]\d)", said) is not None)


def mark_number(answer: str, truth: str) -> float:
    """Return 1 where the one number in the answer is the truth; number words up to ten count.

    >>> mark_number("There are three circles.", "3"), mark_number("3 or 4", "3")
    (1.0, 0.0)
    """
    found = set(re.findall(r"\d+", spell_digits(fold(answer)[:2000])))
    return float({number.lstrip("0") or "0" for number in found} == {truth})


def mark_yes_no(answer: str, truth: str) -> float:
    """Return 1 where the answer says the true one of the two words and not the other."""
    return float(infer_yes_no(answer).lower() == truth.lower())


def mark_markdown(answer: str, truth: str) -> float:
    """Return the share of cells that stand at their place; rows too many or too few count against it."""
    one, two = cells(truth), cells(answer)
    total = max(len(one), len(two))
    return sum(fold(cell) == fold(two.get(place, "\0")) for place, cell in one.items()) / max(total, 1)


def cells(table: str) -> dict[tuple[int, int], str]:
    """Return (row, column) -> text of a markdown table; lines without a bar are talk around it."""
    rows = [line.strip().strip("|").split("|") for line in table[:20_000].splitlines() if "|" in line]
    rows = [row for row in rows if not all(re.fullmatch(r"\s*:?-+:?\s*", cell) for cell in row)]
    return {(y, x): cell.strip() for y, row in enumerate(rows) for x, cell in enumerate(row)}


def refuses(answer: str) -> bool:
    """True when an answer says that something is not there.

    >>> refuses("not present"), refuses("There is no tip on this receipt."), refuses("$2.00")
    (True, True, False)
    """
    return _REFUSALS.search(fold(answer)[:1000]) is not None


def mark_refusal(answer: str, truth: str) -> float:
    """Return 1 for an answer that says so."""
    return float(refuses(answer))


RULES = {
    "text": mark_text, "short": mark_short, "number": mark_number, "yes_no": mark_yes_no, "markdown": mark_markdown,
    "refusal": mark_refusal,
}  # fmt: skip
