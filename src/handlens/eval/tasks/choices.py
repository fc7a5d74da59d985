"""Multiple choice: MMBench, MMStar, AI2D, SEEDBench-IMG, RealWorldQA, MMMU.

Boundary: each task is a row here; reading, marking and adding up are pure functions of other files.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlens.core.sampling import Sampling
from handlens.eval.readers import LETTERS, to_item
from handlens.eval.scorers.choice import OTHER, infer_option, parse_mmmu_choice
from handlens.eval.scorers.opened import is_open_right
from handlens.eval.scorers.totals import all_right, circular
from handlens.eval.task import LEADERBOARD, SHIPPED, GraderUse, Item, Mark, Recipe, RowReader, Task, accuracy

ROTATION = 1_000_000
"""Rows of MMBench whose indices are equal modulo this are one question with its options rotated."""
LETTER_ONLY = "Answer with the option's letter from the given choices directly."
RECIPES = (
    Recipe(
        name=SHIPPED,
        template="{hint}{question}\n{options}" + LETTER_ONLY,
        sampling=Sampling(max_tokens=64),
        source="what a user would type",
    ),
    Recipe(
        name=LEADERBOARD,
        before="Carefully read the following question and select the letter corresponding to the "
        "correct answer. Highlight the applicable choices without giving explanations.\n"
        "Please just indicate your choice.",
        template="{hint}Question: {question}\n{options}",
        sampling=Sampling(max_tokens=200, num_beams=3, repetition_penalty=1.2),
        source="VLMEvalKit, wrapper MiniCPM_Llama3_V, and the decoding of the released chat()",
    ),
)
PROMPT = """A question has several options. Someone answered it in their own words.
Say which option the answer means. Reply with its letter alone, or with Z if it means none of them.

Question: {question}
{options}Answer: {answer}
Letter:"""


def mark_choice(item: Item, answer: str) -> Mark:
    """Mark by rules; an answer from which no option can be read is a miss and says so."""
    letter = infer_option(answer, item.options)
    return Mark(
        score=float(letter == item.truth[0]) if item.truth else 0.0,
        extracted=letter,
        status="ok" if letter else "unparsed",
    )


def read_letter(item: Item, answer: str, reply: str) -> Mark | None:
    """Return the mark of a grader's letter."""
    letter = infer_option(reply, item.options)
    return Mark(score=float(letter == item.truth[0]), extracted=letter) if letter else None


GRADER = GraderUse(template=PROMPT, read=read_letter, max_tokens=8)


def read_choice(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return a question with options; an answer given as a place or a text becomes a letter."""
    item = to_item(row, folder, number)
    return replace(item, truth=tuple(_letter(truth, item.options) for truth in item.truth))


def _letter(truth: str, options: Mapping[str, str]) -> str:
    if truth.strip().isdigit() and int(truth) < len(options) and truth not in options.values():
        return LETTERS[int(truth)]
    return next((letter for letter, text in options.items() if text == truth), truth.strip())


def read_rotation(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return one rotation of an MMBench question."""
    item = read_choice(row, folder, number)
    if item is None or not item.id.isdigit():
        return item
    return replace(item, group=str(row.get("g_index") or int(item.id) % ROTATION))


def read_seed(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return a SEED-Bench question about a picture; questions about videos are another benchmark."""
    if str(row.get("data_type", "image")) != "image":
        return None
    return read_choice({**row, "category": first_of(row, "category", "question_type_id")}, folder, number)


def first_of(row: Mapping[str, Any], *names: str) -> str:
    """Return the first column that is there, as text."""
    return next((str(row[name]) for name in names if row.get(name) is not None), "")


def read_inline(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return a question whose options stand in its text, one per line (RealWorldQA and MMStar as parquet)."""
    item = read_choice(row, folder, number)
    if item is None or item.options:
        return item
    found = re.findall(r"(?:^|\n)\s*\(?([A-J])[.):]\s*([^\n]+)", item.question)
    found = found or re.findall(r"(?:^|[\s,])([A-J]):\s*(.+?)(?=,\s*[A-J]:|$)", item.question, re.DOTALL)
    asked = re.split(r"\n\s*\(?A[.):]|\n?Options:", item.question)[0].strip() if found else item.question
    asked = asked.replace("Please answer directly with only the letter of the correct option and nothing else.", "")
    return replace(item, options={letter: text.strip() for letter, text in found}, question=asked.strip())


def mark_inline(item: Item, answer: str) -> Mark:
    """Mark a choice, or compare words where the question has no options."""
    if item.options:
        return mark_choice(item, answer)
    given = answer.lower().strip().rstrip(".")
    return Mark(score=float(any(given == truth.lower().strip() for truth in item.truth)), extracted=given[:80])


def read_mmmu(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return an MMMU question of the validation split; an open one becomes VLMEvalKit's two options."""
    if str(row.get("split", "validation")) not in ("", "val", "validation"):
        return None
    item = read_choice(row, folder, number)
    assert item is not None
    question = re.sub(r"<image (\d)>", r"(image \1)", item.question)
    options = {letter: re.sub(r"<image (\d)>", r"(image \1)", text) for letter, text in item.options.items()}
    facts = {"open": list(item.truth)} if not options else {}
    category = item.category if "category" in row else re.sub(r"^[a-z]+_(.+)_\d+$", r"\1", item.id)
    return replace(item, question=question, options=options, facts=facts, category=category)


def mark_mmmu(item: Item, answer: str) -> Mark:
    """Mark as VLMEvalKit does: an open question is right where its answer's text is found, else it is option B."""
    if not item.options:
        return mark_choice(replace(item, options={"A": ", ".join(item.truth), "B": OTHER}, truth=("A",)), answer)
    return mark_choice(item, answer)


def mark_mmmu_official(item: Item, answer: str) -> Mark:
    """Mark as MMMU's own code does, but count an unreadable answer as a miss where it draws one at random."""
    if not item.options:
        return Mark(score=float(is_open_right(answer, item.truth)), extracted=answer[-80:])
    letter = parse_mmmu_choice(answer, item.options)
    return Mark(score=float(letter in item.truth), extracted=letter, status="ok" if letter else "unparsed")


def _choice(name: str, title: str, files: str, read: RowReader = read_choice, **changes: Any) -> Task:
    names = tuple(files.split())
    fields: dict[str, Any] = {
        "name": name,
        "title": title,
        "metric": "accuracy, %",
        "needs": f"{names[0]}.tsv, .json or .parquet in --data",
        "files": names,
        "read": read,
        "mark": mark_choice,
        "total": accuracy,
        "recipes": RECIPES,
        "grader": GRADER,
    }
    return Task(**(fields | changes))


_CIRCULAR: dict[str, Any] = {"metric": "circular accuracy, %", "total": circular, "unit_score": all_right}
_MMMU_RECIPES = (RECIPES[0], replace(RECIPES[1], before="", template=RECIPES[1].before + "\n" + RECIPES[1].template))
TASKS = (
    _choice(
        "mmbench-en",
        "MMBench, English, circular",
        "MMBench_DEV_EN MMBench_TEST_EN MMBench_DEV_EN_V11 MMBench_TEST_EN_V11 MMBench MMBench_V11 mmbench_en",
        read_rotation,
        **_CIRCULAR,
        notes="the test split has no answers in the public file: use DEV, or the submission that --out keeps",
    ),
    _choice(
        "mmbench-cn",
        "MMBench, Chinese, circular",
        "MMBench_DEV_CN MMBench_TEST_CN MMBench_DEV_CN_V11 MMBench_TEST_CN_V11 MMBench_CN MMBench_CN_V11 mmbench_cn",
        read_rotation,
        **_CIRCULAR,
    ),
    _choice("mmstar", "MMStar", "MMStar", read_inline),
    _choice("ai2d", "AI2D, test", "AI2D_TEST AI2D_TEST_NO_MASK ai2d"),
    _choice("seedbench-img", "SEED-Bench, picture questions", "SEEDBench_IMG SEED-Bench seedbench", read_seed),
    _choice("realworldqa", "RealWorldQA", "RealWorldQA realworldqa", read_inline, mark=mark_inline),
    _choice(
        "mmmu",
        "MMMU, validation, VLMEvalKit's rules",
        "MMMU_DEV_VAL MMMU_VAL MMMU",
        read_mmmu,
        mark=mark_mmmu,
        recipes=_MMMU_RECIPES,
    ),
    _choice(
        "mmmu-official",
        "MMMU, validation, rules of its own code",
        "MMMU_DEV_VAL MMMU_VAL MMMU",
        read_mmmu,
        mark=mark_mmmu_official,
        recipes=_MMMU_RECIPES,
        grader=None,
    ),
)
