"""Yes or no: MME, HallusionBench, POPE, AMBER's yes/no part.

Boundary: each task is a row here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlens.core.sampling import Sampling
from handlens.eval.readers import pictures_of, to_item
from handlens.eval.scorers.totals import AMBER_KINDS, amber, hallusion, mme, pope
from handlens.eval.scorers.yesno import infer_yes_no
from handlens.eval.task import LEADERBOARD, SHIPPED, GraderUse, Item, Mark, Recipe, Task

_SOURCE = "VLMEvalKit, wrapper MiniCPM_Llama3_V, and the decoding of the released chat()"
_BEAMS = Sampling(max_tokens=3, num_beams=3, repetition_penalty=1.2)
RECIPES = (
    Recipe(name=SHIPPED, template="{question}", sampling=Sampling(max_tokens=64), source="what a user would type"),
    Recipe(name=LEADERBOARD, template="{question} Yes or No?", sampling=_BEAMS, source=_SOURCE),
)
PROMPT = """Someone was asked a question that is answered with yes or no, and answered it in their own words.
Say what the answer means. Reply with one word: Yes, No, or Unknown if it means neither.

Question: {question}
Answer: {answer}
Meaning:"""


def mark_yes_no(item: Item, answer: str) -> Mark:
    """Mark by VLMEvalKit's rule; an answer with both words or neither is a miss and says so."""
    said = infer_yes_no(answer)
    return Mark(score=float(said == item.truth[0]), extracted=said, status="ok" if said else "unparsed")


def read_yes_no(item: Item, answer: str, reply: str) -> Mark | None:
    """Return the mark of a grader's word."""
    said = infer_yes_no(reply)
    if said or "unknown" in reply.lower():
        return Mark(score=float(said == item.truth[0]), extracted=said)
    return None


GRADER = GraderUse(template=PROMPT, read=read_yes_no, max_tokens=8)


def yes_no_item(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return a question whose truth is Yes or No, however the file writes it."""
    item = to_item(row, folder, number)
    words = {"1": "Yes", "0": "No", "true": "Yes", "false": "No"}
    return replace(
        item, truth=tuple(words.get(t.strip().lower(), t.strip().rstrip(".").capitalize()) for t in item.truth)
    )


def read_mme(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return an MME question; the two questions of a picture make one unit."""
    item = yes_no_item(row, folder, number)
    picture = row.get("image_path") or row.get("question_id") or row.get("image_name")
    question = item.question.replace(" Please answer yes or no.", "")
    # question_id names the picture, not the question, so the row number is added.
    return replace(
        item,
        id=f"{item.id}#{number}" if "index" not in row else item.id,
        question=question,
        group=f"{item.category}/{picture or f'pair {number // 2}'}",
    )


def read_hallusion(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return a HallusionBench question; the figures and questions of a set are counted in two ways."""
    item = yes_no_item(row, folder, number)
    parts = item.id.split("_")  # category_subcategory_input_set_figure_question
    kind = str(row.get("l2-category") or row.get("subcategory") or "_".join(parts[1:2]))
    fields = [
        str(row[name]) if name in row else parts[place] if len(parts) > 5 else ""
        for place, name in ((3, "set_id"), (4, "figure_id"), (5, "question_id"))
    ]
    identity = item.id
    if "subcategory" in row:
        identity = (
            "_".join(str(row.get(name, "")) for name in ("category", "subcategory", "visual_input"))
            + "_"
            + "_".join(fields)
        )
    pictures = () if str(row.get("visual_input")) == "0" and not row.get("filename") else pictures_of(row, folder)
    return replace(
        item,
        id=identity,
        group=f"{kind}_{fields[0]}",
        pictures=pictures,
        category=str(row.get("category") or ""),
        facts={"figure": fields[1], "question": fields[2]},
    )


def read_pope(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return a POPE question; questions about one picture are drawn together."""
    item = yes_no_item(row, folder, number)
    picture = row.get("image_path") or row.get("image_source") or row.get("image")
    return replace(item, group=str(picture)[:80] if isinstance(picture, str) else "")


def read_amber(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return a yes/no question of AMBER; descriptions are the task ``amber-generative``."""
    if not row.get("answer") and str(row.get("truth")) not in ("yes", "no"):
        return None
    item = yes_no_item({"answer": row.get("truth"), **row}, folder, number)
    kind = str(row.get("category") or row.get("type") or "")
    return replace(item, category=AMBER_KINDS.get(kind, kind), group="")


def _yes_no(**changes: Any) -> Task:
    fields: dict[str, Any] = {"mark": mark_yes_no, "recipes": RECIPES, "grader": GRADER, "is_mean": False}
    return Task(**(fields | changes))


def _polite(tail: str, tokens: int) -> tuple[Recipe, Recipe]:
    board = Sampling(max_tokens=tokens, num_beams=3, repetition_penalty=1.2)
    return RECIPES[0], Recipe(name=LEADERBOARD, template="{question}" + tail, sampling=board, source=_SOURCE)


TASKS = (
    _yes_no(
        name="mme",
        title="MME",
        metric="perception + cognition, of 2800",
        needs="MME.tsv or .parquet in --data",
        files=("MME",),
        read=read_mme,
        total=mme,
        divide_by=28.0,
    ),
    _yes_no(
        name="hallusionbench",
        title="HallusionBench",
        metric="mean of aAcc, fAcc and qAcc, %",
        needs="HallusionBench.tsv or .json in --data",
        files=("HallusionBench",),
        read=read_hallusion,
        total=hallusion,
    ),
    _yes_no(
        name="pope",
        title="POPE",
        metric="F1 of yes, %",
        needs="POPE.tsv, .jsonl or .parquet in --data",
        files=("POPE", "coco_pope"),
        read=read_pope,
        total=pope,
        recipes=_polite("\nAnswer the question using a single word or phrase.", 3),
    ),
    _yes_no(
        name="amber",
        title="AMBER, yes/no part",
        metric="mean accuracy of attribute, existence and relation, %",
        needs="AMBER.tsv in --data",
        files=("AMBER", "query_discriminative"),
        read=read_amber,
        total=amber,
        recipes=_polite("\nPlease answer yes or no.", 3),
    ),
)
