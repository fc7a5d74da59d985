"""Which option an answer means: letters first, then the text of an option.

Boundary: text in, a letter out ('' where no option can be told, 'Z' for a refusal); nothing is guessed at random.

Sources: the ``exact_matching`` rules of VLMEvalKit; MMMU's own parser (arXiv 2311.16502).
"""

from collections.abc import Mapping, Sequence

REFUSALS = (
    "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip
FAILED_CALL = "Failed to obtain answer via API"
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
OTHER = "Other Answers"
"""Text of option B where VLMEvalKit turns an open MMMU question into a choice."""


def infer_letter(answer: str, letters: Sequence[str]) -> str:
    """Return the one letter that stands alone in the answer, among its last words.

    >>> infer_letter("The answer is (B).", "ABCD")
    'B'
    >>> infer_letter("A or B", "ABCD")
    ''
    """
    if FAILED_CALL in answer:
        return ""
    if any(refusal in answer for refusal in REFUSALS):
        return "Z"
    words = answer.translate(_BLANKS).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1:
        return found[0] if words.index(found[0]) > len(words) - 5 else ""
    return "Z" if not found and "Z" in words else ""


def infer_text(answer: str, options: Mapping[str, str]) -> str:
    """Return the one option whose text stands in the answer, unless the answer is much longer than the options."""
    low = answer.lower()
    if len(low) > 2 * sum(len(text) for text in options.values()):
        return ""
    found = [letter for letter, text in options.items() if text.lower() in low]
    return found[0] if len(found) == 1 else ""


def infer_option(answer: str, options: Mapping[str, str]) -> str:
    """Return the option an answer means, by letter or else by text.

    >>> infer_option("a cute teddy bear", {"A": "teddy bear", "B": "rabbit"})
    'A'
    """
    return infer_letter(answer, tuple(options)) or infer_text(answer, options)


def parse_mmmu_choice(answer: str, options: Mapping[str, str]) -> str:
    """Return MMMU's reading of a choice: (B), then ``B ``, then ``B.``, then an option's text; the last one wins.

    The official parser draws a random option where nothing is found; this one returns ''.
    """
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    text = f" {answer} "
    ways = (
        ([letter for letter in options if f"({letter})" in text], "({})"),
        ([letter for letter in options if f"{letter} " in text], " {} "),
        ([letter for letter in options if f"{letter}." in text], " {} "),
    )
    found, form = next(((found, form) for found, form in ways if found), ([], ""))
    if found:
        return max(found, key=lambda letter: text.rfind(form.format(letter))) if len(found) > 1 else found[0]
    if len(text.split()) > 5:
        low = text.lower()
        named = [letter for letter, option in options.items() if option.lower() in low]
        if named:
            return max(named, key=lambda letter: low.rfind(options[letter].lower()))
    return ""
