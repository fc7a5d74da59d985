"""A page of pictures on which a model was wrong, and what it takes for what.

Boundary: a report about drawn pictures in, one picture out; what it shows is drawn again from its key.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from handlens.data.generate import generate
from handlens.errors import SettingError
from handlens.eval.heldout import Answered, Report
from handlens.eval.scorers import edit_distance

COLUMNS, CARD_PX, PICTURE_PX = 4, (300, 312), (284, 190)
GROUND, CARD, GREY, RIGHT, WRONG = "#60646f", "#ffffff", "#57606a", "#116329", "#a40e26"
LINE_PX = 16


def confusions(pairs: Sequence[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Count what was written for what: single characters of aligned (truth, answer) pairs.

    >>> confusions([("10 Oak", "1O 0ak"), ("cart", "cat")])
    Counter({('0', 'O'): 1, ('O', '0'): 1, ('r', ''): 1})
    """
    return Counter(pair for truth, answer in pairs for pair in aligned(truth, answer) if pair[0] != pair[1])


def aligned(truth: str, answer: str) -> list[tuple[str, str]]:
    """Return the characters of two texts side by side with the fewest edits; "" stands beside what has no partner."""
    costs = [list(range(len(answer) + 1))]
    for i, left in enumerate(truth, 1):
        costs.append([i])
        for j, right in enumerate(answer, 1):
            costs[i].append(min(costs[i - 1][j] + 1, costs[i][j - 1] + 1, costs[i - 1][j - 1] + (left != right)))
    result, i, j = [], len(truth), len(answer)
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + (truth[i - 1] != answer[j - 1]):
            result.append((truth[i - 1], answer[j - 1]))
            i, j = i - 1, j - 1
        elif i and costs[i][j] == costs[i - 1][j] + 1:
            result.append((truth[i - 1], ""))
            i -= 1
        else:
            result.append(("", answer[j - 1]))
            j -= 1
    return result[::-1]


def choose(answers: Sequence[Answered], each: int = 2) -> list[Answered]:
    """Return up to ``each`` wrong answers of every task, from the typical to the worst."""
    chosen = []
    for task in sorted({answer.task for answer in answers}):
        wrong = [answer for answer in answers if answer.task == task and not answer.is_exact]
        wrong.sort(key=lambda one: edit_distance(one.truth, one.answer.strip()) / max(len(one.truth), 1))
        places = sorted({len(wrong) * (2 * number + 1) // (2 * each) for number in range(each)}) if wrong else []
        chosen += [wrong[place] for place in places]
    return chosen


def mistakes_page(report: Report, each: int = 2) -> Image.Image:
    """Return the page: confusions of short answers and of characters above, pictures with wrong answers below."""
    font, small = ImageFont.load_default(13), ImageFont.load_default(12)
    head = _head(report)
    chosen = choose(report.answers, each)
    rows = -(-len(chosen) // COLUMNS)
    top = 12 + LINE_PX * len(head) + 8
    width = COLUMNS * (CARD_PX[0] + 8) + 8
    page = Image.new("RGB", (width, top + rows * (CARD_PX[1] + 8)), GROUND)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(head):
        draw.text((12, 10 + number * LINE_PX), line, fill="#ffffff", font=font)
    for number, answered in enumerate(chosen):
        left = 8 + number % COLUMNS * (CARD_PX[0] + 8)
        page.paste(_card(report, answered, small), (left, top + number // COLUMNS * (CARD_PX[1] + 8)))
    return page


def save_mistakes(report: Report, file: Path) -> None:
    """Write the page as PNG.

    Raises:
        SettingError: the file cannot be written.
    """
    part = file.with_name(f".{file.name}")
    try:
        mistakes_page(report).quantize(128, dither=Image.Dither.NONE).save(part, "PNG", optimize=True)
        part.replace(file)
    except OSError as cause:
        raise SettingError(f"cannot write the page {file}: {cause.strerror or cause}") from None
    finally:
        part.unlink(missing_ok=True)


def _head(report: Report) -> list[str]:
    wrong = [answer for answer in report.answers if not answer.is_exact]
    asked, told = len(report.answers), f"{report.split}, level {report.level:g}, seed {report.seed}"
    first = f"{report.model.name}: {len(wrong):,} of {asked:,} answers are wrong ({told})."
    lines = [f"{first} Below: of every task a typical mistake and a bad one."]
    read = [(one.truth, one.answer.strip()) for one in report.answers if one.task in ("lines.read", "pages.line")]
    letters = [f"{_shown(a)}>{_shown(b)} {count}" for (a, b), count in confusions(read).most_common(24)]
    lines += textwrap.wrap("Characters of lines, true>read: " + "   ".join(letters), 165) if letters else []
    for task in ("scenes.colour", "scenes.shape", "scenes.count", "scenes.exists", "scenes.where"):
        swaps = Counter((one.truth, one.answer.strip()) for one in wrong if one.task == task)
        told = "   ".join(f"{truth}>{said[:14]} {count}" for (truth, said), count in swaps.most_common(8))
        lines += textwrap.wrap(f"{task}, true>said: {told}", 165) if told else []
    return lines


def _shown(character: str) -> str:
    return {"": "(none)", " ": "(space)"}.get(character, character)


def _card(report: Report, answered: Answered, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    kind, index = answered.key.split("-")[0], int(answered.key.rsplit("-", 1)[1])
    record = generate(
        kind, report.seed, index, split=report.split, level=report.level, languages=(answered.language,)
    )  # fmt: skip
    picture = record.picture.convert("RGB")
    scale = min(PICTURE_PX[0] / picture.width, PICTURE_PX[1] / picture.height, 1.5)
    picture = picture.resize(
        (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)), Image.Resampling.LANCZOS
    )
    card = Image.new("RGB", CARD_PX, CARD)
    card.paste(picture, ((CARD_PX[0] - picture.width) // 2, 8 + (PICTURE_PX[1] - picture.height) // 2))
    draw, top = ImageDraw.Draw(card), PICTURE_PX[1] + 14
    parts = ((f"{answered.task}: {answered.question}", GREY, 2), (answered.truth, RIGHT, 3),
             (answered.answer.strip() or "(nothing)", WRONG, 3))  # fmt: skip
    for text, colour, most in parts:
        lines = [piece for line in text.splitlines() for piece in textwrap.wrap(line, 44)]
        for number, line in enumerate(lines[:most]):
            ended = f"{line[:41]} ..." if number == most - 1 and len(lines) > most else line
            draw.text((8, top), ended, fill=colour, font=font)
            top += LINE_PX - 2
    return card
