"""Yes or no: three official ways to read it out of an answer.

Boundary: text in, 'Yes', 'No' or '' out.
"""

from handlens.eval.scorers.vqa import strip_punctuation


def infer_yes_no(answer: str) -> str:
    """Return the one of the two words that is there (VLMEvalKit: MME, HallusionBench, POPE, AMBER).

    >>> infer_yes_no("Yes, it is."), infer_yes_no("yes and no")
    ('Yes', '')
    """
    words = strip_punctuation(answer.lower()).split()
    has_yes, has_no = "yes" in words, "no" in words
    return "" if has_yes == has_no else "Yes" if has_yes else "No"


def infer_first_word(answer: str) -> str:
    """Return what the first four characters say (MME's own evaluation code).

    >>> infer_first_word("No."), infer_first_word("I think yes")
    ('No', '')
    """
    text = answer.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "Yes", "n": "No"}.get(text, "")
    return "Yes" if "yes" in text[:4] else "No" if "no" in text[:4] else ""


def infer_anywhere(answer: str) -> str:
    """Return Yes where 'yes' stands anywhere, else No where 'no' does (AMBER's own evaluation code)."""
    low = answer.lower()
    return "Yes" if "yes" in low else "No" if "no" in low else ""
