"""Short answers that a rule can compare: TextVQA, DocVQA, OCRBench, MathVista.

Boundary: each task is a row here.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlens.core.sampling import Sampling
from handlens.eval.readers import LETTERS, as_list, to_item
from handlens.eval.scorers.choice import infer_option
from handlens.eval.scorers.opened import extract_value, is_value_right
from handlens.eval.scorers.totals import ocrbench
from handlens.eval.scorers.vqa import anls, reads_text, vqa_accuracy
from handlens.eval.task import LEADERBOARD, SHIPPED, GraderUse, Item, Mark, Recipe, Task, accuracy

_SOURCE = "the authors' eval_mm and VLMEvalKit, wrapper MiniCPM_Llama3_V"
FORMULAS = "Handwritten Mathematical Expression Recognition"
_SHORT = Sampling(max_tokens=100, num_beams=3, repetition_penalty=1.2)
_LONG = Sampling(max_tokens=1024, num_beams=3, repetition_penalty=1.2)
_WORD = "Answer the question using a single word or phrase."
SHIPPED_RECIPE = Recipe(name=SHIPPED, sampling=Sampling(max_tokens=128), source="what a user would type")
MATH_PROMPT = """Someone answered a question at length. Copy out the final value of the answer and nothing else:
a whole number, a decimal number, a list in square brackets, or the letter of an option, as the question asks for.
If there is no final value, reply with: none

Question: {question}
{options}Answer: {answer}
Final value:"""


def read_words(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return a question with one or more accepted answers."""
    return to_item(row, folder, number, options={})


def read_docvqa(row: Mapping[str, Any], folder: Path, number: int) -> Item | None:
    """Return a question about a page; the test split hides its answers and cannot be scored here."""
    item = replace(read_words(row, folder, number), category="")
    return item if item.truth else None


def read_ocrbench(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return an OCRBench item; its type is the category."""
    return read_words(
        {**row, "category": row.get("category") or row.get("question_type") or row.get("type")}, folder, number
    )


def read_mathvista(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return a MathVista question as the benchmark words it, hint and choices included."""
    choices = [str(choice) for choice in as_list(row.get("choices"))]
    asked = str(row.get("query") or row["question"])
    item = to_item(
        {**row, "question": asked, "category": row.get("task") or _nested(row, "task")}, folder, number, options={}
    )
    answer = str(row.get("answer", ""))
    option = str(row.get("answer_option") or "")
    if choices and not option and answer in choices:
        option = LETTERS[choices.index(answer)]
    precision = row.get("precision")
    facts = {
        "question_type": str(row.get("question_type") or ("multi_choice" if choices else "free_form")),
        "answer_type": str(row.get("answer_type") or "text"),
        "choices": choices,
        "option": option,
        "precision": int(float(precision)) if precision else 0,
    }
    return replace(item, truth=(answer,), facts=facts)


def _nested(row: Mapping[str, Any], name: str) -> str:
    inside = row.get("metadata")
    return str(inside.get(name, "")) if isinstance(inside, Mapping) else ""


def mark_vqa(item: Item, answer: str) -> Mark:
    """Mark by VQA accuracy with EvalAI's normalisation."""
    return Mark(score=vqa_accuracy(answer, item.truth), extracted=answer[:200])


def mark_anls(item: Item, answer: str) -> Mark:
    """Mark by ANLS, threshold 0.5."""
    return Mark(score=anls(answer, item.truth), extracted=answer[:200])


def mark_ocrbench(item: Item, answer: str) -> Mark:
    """Mark 1 where a truth stands in the answer."""
    is_formula = item.category == FORMULAS or item.facts.get("dataset") == "HME100k"
    return Mark(score=float(reads_text(answer, item.truth, is_formula=is_formula)), extracted=answer[:200])


def mark_mathvista(item: Item, answer: str) -> Mark:
    """Mark by rules: VLMEvalKit's comparison of the last value in the answer."""
    return _mark_value(item, extract_value(answer, item.facts["answer_type"]), answer)


def _mark_value(item: Item, value: str, answer: str) -> Mark:
    facts = item.facts
    if facts["question_type"] == "multi_choice":
        options = {LETTERS[place]: text for place, text in enumerate(facts["choices"])}
        said = infer_option(value, options) or infer_option(answer, options)
        return Mark(
            score=float(bool(said) and said == facts["option"]), extracted=said, status="ok" if said else "unparsed"
        )
    right = is_value_right(value, item.truth[0], question_type="free_form", answer_type=facts["answer_type"])
    return Mark(score=float(right), extracted=value[:200], status="ok" if value else "unparsed")


def read_value(item: Item, answer: str, reply: str) -> Mark | None:
    """Return the mark of the value that a grader copied out."""
    value = reply.strip().splitlines()[0].strip() if reply.strip() else ""
    if not value or value.lower() == "none":
        return None
    if item.facts["answer_type"] in ("integer", "float") and not extract_value(value, item.facts["answer_type"]):
        return None
    mark = _mark_value(item, value, value)
    return mark if mark.status == "ok" else None


TASKS = (
    Task(
        name="textvqa",
        title="TextVQA, validation",
        metric="VQA accuracy, %",
        needs="TextVQA_VAL.tsv, TextVQA_0.5.1_val.json or parquet in --data",
        files=("TextVQA_VAL", "TextVQA_0.5.1_val", "textvqa"),
        read=read_words,
        mark=mark_vqa,
        total=accuracy,
        recipes=(SHIPPED_RECIPE, Recipe(name=LEADERBOARD, before=_WORD, sampling=_SHORT, source=_SOURCE)),
    ),
    Task(
        name="docvqa",
        title="DocVQA, validation",
        metric="ANLS, %",
        needs="DocVQA_VAL.tsv, val_v1.0.json or parquet in --data",
        files=("DocVQA_VAL", "val_v1.0_withQT", "val_v1.0", "docvqa"),
        read=read_docvqa,
        mark=mark_anls,
        total=accuracy,
        notes="the answers of the test split are hidden; its server scores them",
        recipes=(SHIPPED_RECIPE, Recipe(name=LEADERBOARD, before=_WORD, sampling=_SHORT, source=_SOURCE)),
    ),
    Task(
        name="ocrbench",
        title="OCRBench",
        metric="right answers, of 1000",
        needs="OCRBench.tsv, .json or .parquet in --data",
        files=("OCRBench",),
        read=read_ocrbench,
        mark=mark_ocrbench,
        total=ocrbench,
        divide_by=10.0,
        is_mean=False,
        recipes=(SHIPPED_RECIPE, Recipe(name=LEADERBOARD, before=_WORD, sampling=_LONG, source=_SOURCE)),
    ),
    Task(
        name="mathvista",
        title="MathVista, testmini",
        metric="accuracy, %",
        needs="MathVista_MINI.tsv, testmini.json or parquet in --data; a grader for values that rules cannot read",
        files=("MathVista_MINI", "testmini", "MathVista"),
        read=read_mathvista,
        mark=mark_mathvista,
        total=accuracy,
        grader=GraderUse(template=MATH_PROMPT, read=read_value, always=True, max_tokens=128),
        recipes=(SHIPPED_RECIPE, Recipe(name=LEADERBOARD, before=_WORD, sampling=_LONG, source=_SOURCE)),
    ),
)
