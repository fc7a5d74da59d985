"""Free answers that a grader judges: MM-Vet, LLaVA-Bench, its translations, MMHal-Bench.

Boundary: each task is a row here. Without a grader a rule stands in; its number is labelled ``rules`` and cannot be
set beside a graded one. The prompts are our own words, so numbers differ from those of other graders.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlens.core.sampling import Sampling
from handlens.eval.readers import as_list, find_data, read_rows, to_item
from handlens.eval.scorers.graded import best_overlap, holds_parts, overlap, read_pair, read_rating, read_tenth
from handlens.eval.scorers.totals import mm_vet, mmhal, relative
from handlens.eval.task import LEADERBOARD, SHIPPED, GraderUse, Item, Mark, Recipe, Task

_SOURCE = "VLMEvalKit, wrapper MiniCPM_Llama3_V, and the decoding of the released chat()"
_LONG = Sampling(max_tokens=1024, num_beams=3, repetition_penalty=1.2)
SHIPPED_RECIPE = Recipe(name=SHIPPED, sampling=Sampling(max_tokens=512), source="what a user would type")
RECIPES = (SHIPPED_RECIPE, Recipe(name=LEADERBOARD, template="{question}", sampling=_LONG, source=_SOURCE))
LANGUAGES = ("arabic", "bengali", "chinese", "english", "french", "hindi", "japanese", "russian", "spanish", "urdu")
"""PALO's translations of LLaVA-Bench."""
HIGHEST = 10.0
TENTHS = """Grade an answer to a question about a picture against the truth.
<AND> joins parts that must all be there, <OR> joins alternatives of which one is enough.
0.0 is all wrong, 1.0 is all right; tenths between them for what is partly right. Reply with the number alone.

Question: {question}
Truth: {truth}
Answer: {answer}
Grade:"""
PAIR = """Two answers to a question about a picture follow, and a description of the picture, which you cannot see.
Grade each from 1 to 10 for help, relevance, accuracy and detail. Their order means nothing.
Reply with one line that holds two numbers and a space between them, first answer first; then explain in a few lines.

Picture: {context}
Question: {question}
First answer: {reference}
Second answer: {answer}
Grades:"""
RATING = """Rate an answer to a question about a picture. What is in the picture and a good answer are given.
6 very informative, nothing made up; 5 and 4 less informative, nothing made up; 3 no help, nothing made up;
2, 1 and 0 as 5, 4 and 3 but something is made up. Reply with one line: Rating: and the number.

Picture: {context}
Question: {question}
Good answer: {reference}
Answer: {answer}
"""


def mark_parts(item: Item, answer: str) -> Mark:
    """Mark by the share of the truth's parts that stand in the answer."""
    return Mark(score=max((holds_parts(answer, truth) for truth in item.truth), default=0.0), extracted=answer[:200])


def grade_tenth(item: Item, answer: str, reply: str) -> Mark | None:
    """Return a grade from 0 to 1."""
    grade = read_tenth(reply)
    return None if grade is None else Mark(score=grade, extracted=reply.strip())


def mark_likeness(item: Item, answer: str) -> Mark:
    """Mark 10 times the words shared with the reference answer, which itself counts 10."""
    return Mark(score=HIGHEST * best_overlap(answer, item.truth), facts={"reference": HIGHEST})


def grade_pair(item: Item, answer: str, reply: str) -> Mark | None:
    """Return our grade, with the reference's beside it."""
    grades = read_pair(reply)
    return None if grades is None else Mark(score=grades[1], facts={"reference": grades[0]}, extracted=f"{grades[1]:g}")


def mark_mmhal(item: Item, answer: str) -> Mark:
    """Mark 6 times the words shared with the good answer."""
    return Mark(score=6 * overlap(answer, item.truth[0] if item.truth else ""))


def grade_mmhal(item: Item, answer: str, reply: str) -> Mark | None:
    """Return a rating from 0 to 6."""
    rating = read_rating(reply, 6)
    return None if rating is None else Mark(score=float(rating), extracted=str(rating))


def read_mm_vet(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return an MM-Vet question; its abilities are the category."""
    item = to_item(row, folder, number, options={})
    abilities = as_list(row.get("capability")) if "capability" in row else [item.category]
    return replace(item, category=",".join(map(str, abilities)))


def read_llava(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return a LLaVA-Bench question with the reference answer and the description of the picture."""
    reference = row.get("gpt4_ans") or row.get("gpt_answer_text") or row.get("gpt_answer") or row.get("answer") or ""
    context = row.get("caption") or row.get("context") or ""
    item = to_item(row, folder, number, options={}, truth=(str(reference),))
    return replace(item, facts={"context": "\n".join(map(str, as_list(context)))})


def read_mmhal(row: Mapping[str, Any], folder: Path, number: int) -> Item:
    """Return an MMHal question with its good answer and the objects of the picture."""
    item = to_item(
        {"id": row.get("image_id", number), **row}, folder, number, options={}, truth=(str(row["gt_answer"]),)
    )
    contents = as_list(row.get("image_content"))
    return replace(
        item,
        id=f"{item.id}#{number}",
        facts={"context": ", ".join(map(str, contents))},
        category=str(row.get("question_type") or ""),
    )


def multilingual(folder: Path | None) -> Iterator[Item]:
    """Yield the questions of every language that is there; the language is the category.

    Raises:
        DataError: no language is there.
    """
    there = [language for language in LANGUAGES if folder is not None and _has(folder, language)]
    if not there:
        find_data(folder, "llava-bench-multilingual", ("multilingual_llava_bench/french",))
    for language in there:
        assert folder is not None
        paths = find_data(_inside(folder), "llava-bench-multilingual", _names(language))
        for number, row in enumerate(read_rows(paths)):
            item = read_llava(row, paths[0].parent, number)
            yield replace(item, id=f"{language}/{item.id}", category=language)


def _inside(folder: Path) -> Path:
    inner = folder / "multilingual_llava_bench"
    return inner if inner.is_dir() else folder


def _names(language: str) -> tuple[str, ...]:
    return (language, f"{language}_llava_in_the_wild", f"llava_bench_{language}")


def _has(folder: Path, language: str) -> bool:
    inner = _inside(folder)
    stems = {entry.name.lower().partition(".")[0] for entry in inner.iterdir()} if inner.is_dir() else set()
    return bool(stems & set(_names(language)))


_VET = Recipe(name=LEADERBOARD, before="Answer this question in detail.", sampling=_LONG, source=_SOURCE)
_PAIR = GraderUse(template=PAIR, read=grade_pair, always=True, max_tokens=512)
_WITHOUT = "without a grader a word rule stands in, which measures something else"
TASKS = (
    Task(
        name="mm-vet",
        title="MM-Vet",
        metric="mean grade, %",
        needs="MMVet.tsv or mm-vet.json in --data; a grader",
        files=("MMVet", "mm-vet"),
        read=read_mm_vet,
        mark=mark_parts,
        total=mm_vet,
        recipes=(SHIPPED_RECIPE, _VET),
        grader=GraderUse(template=TENTHS, read=grade_tenth, always=True, max_tokens=8),
        notes=_WITHOUT,
    ),
    Task(
        name="llava-bench",
        title="LLaVA-Bench in the Wild",
        metric="grade relative to the reference, %",
        needs="LLaVABench.tsv, .jsonl or .parquet in --data; a grader",
        is_mean=False,
        files=("LLaVABench", "llava_bench", "llava-bench-in-the-wild"),
        read=read_llava,
        mark=mark_likeness,
        total=relative,
        full_mark=HIGHEST,
        recipes=RECIPES,
        grader=_PAIR,
        notes=_WITHOUT,
    ),
    Task(
        name="llava-bench-multilingual",
        title="LLaVA-Bench, translated (PALO)",
        is_mean=False,
        metric="grade relative to the reference, %",
        needs="multilingual_llava_bench/<language>.jsonl, .tsv or .parquet in --data; a grader",
        draw=multilingual,
        mark=mark_likeness,
        total=relative,
        full_mark=HIGHEST,
        recipes=RECIPES,
        grader=_PAIR,
        notes=_WITHOUT,
    ),
    Task(
        name="mmhal-bench",
        title="MMHal-Bench",
        metric="mean rating, of 6",
        needs="response_template.json or MMHal-Bench.json in --data; a grader",
        is_mean=False,
        files=("MMHal-Bench", "response_template", "mmhal_bench"),
        read=read_mmhal,
        mark=mark_mmhal,
        total=mmhal,
        full_mark=6.0,
        recipes=RECIPES,
        grader=GraderUse(template=RATING, read=grade_mmhal, always=True, max_tokens=256),
        notes=_WITHOUT,
    ),
)
