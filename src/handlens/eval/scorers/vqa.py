"""Short answers: VQA accuracy with the official normalisation, ANLS, exact words, text recognition.

Boundary: text in, a share of 0 to 1 out; no model, no files.

Sources: VQA evaluation code (Agrawal et al. 2014) as EvalAI runs it for TextVQA; ANLS of arXiv 1905.13648,
threshold 0.5; OCRBench arXiv 2305.07895. Quirks of the official code are kept and named where they are.
"""

import re
from collections.abc import Sequence

from handlens.eval.scorers import edit_distance

PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
DIGITS = {"none": "0", "zero": "0"} | {
    word: str(number) for number, word in enumerate("one two three four five six seven eight nine ten".split(), 1)
}
ARTICLES = ("a", "an", "the")
MOST_PERIODS = 32
"""The official code passes ``re.UNICODE`` (32) where ``re.sub`` expects a count: later periods stay."""

_ONE_MARK = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's I'm "
    "I've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've "
    "shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're "
    "there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd "
    "where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're "
    "you've"
)
_TWO_MARKS = (
    "couldn't've hadn't've he'd've I'd've it'd've mightn't've mustn't've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've she'd've"
)
_ODD = {
    "let's": "let's", "she's": "she's", "somebody'd": "somebodyd", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at", "yall'd've": "y'all'd've", "y'alld've": "y'all'd've", "y'all'dve": "y'all'd've",
    "yall'll": "y'all'll", "y'allll": "y'all'll",
}  # fmt: skip
_ABSENT = {"mustnt've", "mustn'tve", "yallll've", "yall'll", "y'allll"}


def _contractions() -> dict[str, str]:
    """Return the official table: a contraction without one of its marks -> with it."""
    table = {word.replace("'", ""): word for word in _ONE_MARK.split()}
    for word in _TWO_MARKS.split():
        first, second = (place for place, char in enumerate(word) if char == "'")
        for dropped in (first, second):
            table[word[:dropped] + word[dropped + 1 :]] = word
    return {key: word for key, word in table.items() if key not in _ABSENT} | _ODD


CONTRACTIONS = _contractions()


def strip_punctuation(text: str, *, keep_decimals: bool = True) -> str:
    """Return the text without the marks of ``PUNCTUATION`` and without most periods.

    A mark becomes nothing where it stands beside a space anywhere, or where the text holds a digit group such as
    ``1,000``; else it becomes a space. ``keep_decimals`` False is EvalAI's rule, whose look-behind is misspelt,
    so that a period after a digit goes unless a digit follows.

    >>> strip_punctuation("3.5 (approx)")
    '3.5 approx '
    """
    out = text
    has_group = re.search(r"\d,\d", text) is not None
    for mark in PUNCTUATION:
        beside_space = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if beside_space or has_group else " ")
    return re.sub(r"(?<!\d)\.(?!\d)" if keep_decimals else r"\.(?!\d)", "", out, count=MOST_PERIODS)


def spell_digits(text: str) -> str:
    """Return lower-case words without articles, number words as digits, contractions with their marks."""
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalise(text: str) -> str:
    """Return an answer as EvalAI compares it (TextVQA).

    >>> normalise("The Two dogs, dont!")
    "2 dogs don't"
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return spell_digits(strip_punctuation(text, keep_decimals=False))


def normalise_kit(text: str) -> str:
    """Return an answer as VLMEvalKit compares it: without EvalAI's first step, decimals kept."""
    return spell_digits(strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def vqa_accuracy(answer: str, truths: Sequence[str], *, kit: bool = False) -> float:
    """Return the mean over the truths of min(1, matches among the other truths / 3).

    ``kit`` normalises as VLMEvalKit does. One truth alone has no others and gives 0, as the official code does.

    >>> vqa_accuracy("stop", ["stop"] * 3 + ["halt"] * 7)
    0.9
    """
    prepare = normalise_kit if kit else normalise
    given = prepare(answer)
    is_same = [prepare(truth) == given for truth in truths]
    total = sum(is_same)
    return sum(min(1.0, (total - same) / 3) for same in is_same) / max(len(truths), 1)


def anls(answer: str, truths: Sequence[str], *, threshold: float = 0.5) -> float:
    """Return 1 - edits / length against the nearest truth; 0 where that is below the threshold.

    Edits are counted on lower-case text with single spaces, the length on the texts as given.

    >>> anls("ocober 2", ["October 2"])
    0.8888888888888888
    """
    best = max((_likeness(answer, truth, threshold) for truth in truths), default=0.0)
    return best if best >= threshold else 0.0


def _likeness(answer: str, truth: str, threshold: float) -> float:
    longest = max(len(truth.upper()), len(answer.upper()))
    if not longest:
        return 1.0
    one, two = (" ".join(text.strip().lower().split()) for text in (truth, answer))
    if abs(len(one) - len(two)) > (1 - threshold) * longest:
        return 0.0  # the edits are at least as many; a run-away answer of 100 kB costs nothing
    return 1 - edit_distance(one, two) / longest


def is_exact(answer: str, truths: Sequence[str]) -> bool:
    """True when the answer is one of the truths; case and space at the ends aside."""
    return answer.strip().lower() in {truth.strip().lower() for truth in truths}


def reads_text(answer: str, truths: Sequence[str], *, is_formula: bool = False) -> bool:
    """OCRBench: True when a truth stands in the answer; formulas are compared without spaces, with case."""
    if is_formula:
        return any(_joined(truth) in _joined(answer) for truth in truths)
    return any(_flat(truth) in _flat(answer) for truth in truths)


def _joined(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _flat(text: str) -> str:
    return text.lower().strip().replace("\n", " ")
