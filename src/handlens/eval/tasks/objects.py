"""Objects that are made up in a description: Object HalBench, and AMBER's generative part.

Boundary: each task is a row here; objects are found by our own table of words, so no grader is needed. Published
numbers use an LLM or a tagger to find them: compare models scored here with each other.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlens.core.sampling import Sampling
from handlens.eval.readers import as_list, find_data, read_rows, to_item
from handlens.eval.scorers.objects import CLASSES, find_objects, plural, rate_objects
from handlens.eval.scorers.totals import amber_generative, chair
from handlens.eval.task import LEADERBOARD, SHIPPED, Item, Mark, Recipe, Task

_LONG = Sampling(max_tokens=1024, num_beams=3, repetition_penalty=1.2)
RECIPES = (
    Recipe(name=SHIPPED, sampling=Sampling(max_tokens=512), source="what a user would type"),
    Recipe(name=LEADERBOARD, sampling=_LONG, source="RLAIF-V: beam search of 3, no sampling"),
)
TRUTHS = ("objects", "gt_object", "gt_objects", "mscoco_objects")


def object_items(folder: Path | None) -> Iterator[Item]:
    """Yield the descriptions that are asked for, each with the objects that are in the picture.

    The truth stands in the row (``objects``: names of COCO classes, and ``captions``: reference captions, whose
    objects count as there), or in COCO's ``instances_val2014.json`` and ``captions_val2014.json`` in the same folder.
    """
    paths = find_data(folder, "object-halbench", ("obj_halbench_300_with_image", "ObjHalBench", "object_halbench"))
    there = _coco_truth(paths[0].parent)
    for number, row in enumerate(read_rows(paths)):
        item = to_item(row, paths[0].parent, number, options={}, category="")
        listed = next((as_list(row[name]) for name in TRUTHS if name in row), [])
        captions = [str(text) for text in as_list(row.get("captions"))]
        named = {str(name) for name in listed} | {name for text in captions for name in find_objects(text)}
        named |= there.get(str(row.get("image_id")), set())
        yield replace(item, id=f"{item.id}#{number}", truth=tuple(sorted(named)))


def _coco_truth(folder: Path) -> dict[str, set[str]]:
    """Return picture id -> names of its segmented and its captioned objects."""
    found: dict[str, set[str]] = {}
    for name in ("instances_val2014.json", "captions_val2014.json"):
        file = folder / name
        if not file.is_file():
            continue
        whole = json.loads(file.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in whole.get("categories", ())}
        for one in whole["annotations"]:
            objects = find_objects(one["caption"]) if "caption" in one else [names[one["category_id"]]]
            found.setdefault(str(one["image_id"]), set()).update(objects)
    return found


def mark_objects(item: Item, answer: str) -> Mark:
    """Mark 1 where no wrong object is named."""
    facts = rate_objects(answer, frozenset(item.truth) & set(CLASSES))
    return Mark(score=float(not facts["wrong"]), facts=facts, extracted=", ".join(sorted(set(find_objects(answer)))))


def amber_items(folder: Path | None) -> Iterator[Item]:
    """Yield the descriptions of AMBER with the nouns that are true, and those that a model is likely to make up."""
    paths = find_data(folder, "amber-generative", ("query_generative", "AMBER_generative"))
    extra = paths[0].parent
    relations = _load(extra, "relation.json", {})
    safe = set(_lines(extra, "safe_words.txt"))
    notes = {str(note["id"]): note for note in _load(extra, "annotations.json", [])}
    for number, row in enumerate(read_rows(paths)):
        note: Mapping[str, Any] = notes.get(str(row.get("id")), row)
        if "hallu" not in note:
            continue
        item = to_item(row, extra, number, options={}, category="", truth=tuple(note["truth"]))
        yield replace(item, facts={"likely": list(note["hallu"]), "relations": relations, "safe": safe})


def _load(folder: Path, name: str, otherwise: Any) -> Any:
    for file in (folder / name, folder.parent / name):
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
    return otherwise


def _lines(folder: Path, name: str) -> list[str]:
    for file in (folder / name, folder.parent / name):
        if file.is_file():
            return [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return []


def mark_nouns(item: Item, answer: str) -> Mark:
    """Mark the nouns of AMBER's list that an answer holds: true ones found, others counted as made up.

    A noun is true where it is annotated or related to an annotated one by AMBER's own list. AMBER also accepts nouns
    that a word-vector model finds alike; this does not.
    """
    relations, likely = item.facts["relations"], set(item.facts["likely"])
    true = {word: {word, *relations.get(word, ())} for word in item.truth}
    bad = {word: {word, *relations.get(word, ())} for word in likely}
    known = {*relations, *(word for words in relations.values() for word in words), *item.truth, *likely}
    forms = {form: word for word in known for form in (word, plural(word)) if form}
    said = [forms[word] for word in re.findall(r"[a-z]+", answer.lower()) if word in forms]
    allowed = set().union(*true.values(), item.facts["safe"])
    wrong = [word for word in said if word not in allowed]
    facts = {
        "named": len(said),
        "wrong": len(wrong),
        "true": len(true),
        "found": sum(bool(words & set(said)) for words in true.values()),
        "likely": sum(bool(words & set(wrong)) for words in bad.values()),
    }
    return Mark(score=float(not wrong), facts=facts, extracted=", ".join(dict.fromkeys(wrong)))


TASKS = (
    Task(
        name="object-halbench",
        title="Object HalBench",
        metric="response hallucination rate, % (lower is better)",
        needs="obj_halbench_300_with_image.jsonl with the objects of each picture, or COCO annotations, in --data",
        draw=object_items,
        mark=mark_objects,
        total=chair,
        recipes=RECIPES,
        is_mean=False,
        higher_is_better=False,
        notes="objects are found by a table of words, not by an LLM: not comparable with published numbers",
    ),
    Task(
        name="amber-generative",
        title="AMBER, generative part",
        metric="CHAIR, % (lower is better)",
        needs="query_generative.json, annotations.json, relation.json and safe_words.txt of AMBER in --data",
        draw=amber_items,
        mark=mark_nouns,
        total=amber_generative,
        recipes=RECIPES,
        is_mean=False,
        higher_is_better=False,
        notes="nouns are found by AMBER's own list without a tagger and without word vectors",
    ),
)
