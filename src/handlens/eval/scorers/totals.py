"""How marks add up where a plain mean is not the rule.

Boundary: marks by unit in, named figures out, the headline first. The rules are those of the benchmarks' own code or
of VLMEvalKit; each function names its source. Nothing is left out of a denominator.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from handlens.eval.task import Marked, Units, by_category, percent

MME_PERCEPTION = (
    "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene",
)  # fmt: skip
MME_COGNITION = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
AMBER_KINDS = {
    "discriminative-attribute-state": "Attribute", "discriminative-attribute-number": "Attribute",
    "discriminative-attribute-action": "Attribute", "discriminative-hallucination": "Existence",
    "discriminative-relation": "Relation", "relation": "Relation",
}  # fmt: skip
ABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
LOWEST_MMHAL = 3.0
"""Below it an MMHal answer counts as a hallucination."""


def all_right(unit: Sequence[Marked]) -> float:
    """Return 1 where every mark of the unit is a full one: one circular question."""
    return float(all(marked.score == 1.0 for marked in unit))


def circular(units: Units) -> dict[str, float]:
    """Return the share of questions that are right in every rotation of their options (MMBench, arXiv 2307.06281)."""
    figures = {"circular_accuracy": 100 * _mean([all_right(unit) for unit in units])}
    for name in sorted({unit[0].category for unit in units} - {""}):
        figures[name] = 100 * _mean([all_right(unit) for unit in units if unit[0].category == name])
    return figures | {"vanilla_accuracy": percent(_flat(units))}


def mme(units: Units) -> dict[str, float]:
    """Return MME's sum of 2800: per subtask accuracy plus the share of pictures with both answers right.

    Source: arXiv 2306.13394. A unit is one picture of one subtask.
    """
    subtasks: dict[str, list[Sequence[Marked]]] = {}
    for unit in units:
        subtasks.setdefault(unit[0].category, []).append(unit)
    scores = {
        name: percent(_flat(pictures)) + 100 * _mean([all_right(picture) for picture in pictures])
        for name, pictures in sorted(subtasks.items())
    }
    perception = sum(scores.get(name, 0.0) for name in MME_PERCEPTION)
    cognition = sum(scores.get(name, 0.0) for name in MME_COGNITION)
    return {"total": perception + cognition, "perception": perception, "cognition": cognition, **scores}


def hallusion(units: Units) -> dict[str, float]:
    """Return the mean of three: answers right; figures and questions with every answer right (arXiv 2310.14566).

    A unit is one set; ``figure`` and ``question`` in the facts name the two groupings inside it.
    """
    every = _flat(units)
    shares = {"aAcc": percent(every)}
    for short, field in (("fAcc", "figure"), ("qAcc", "question")):
        groups: dict[tuple[int, str], list[Marked]] = {}
        for number, unit in enumerate(units):
            for marked in unit:
                groups.setdefault((number, str(marked.facts[field])), []).append(marked)
        shares[short] = 100 * _mean([all_right(group) for group in groups.values()])
    return {"mean_of_three": sum(shares.values()) / 3, **shares}


def pope(units: Units) -> dict[str, float]:
    """Return F1 of 'yes', and accuracy, precision, recall and the share of yes; per split too (arXiv 2305.10355).

    A category may name several splits with commas between them; such an answer counts once in each.
    """
    every = [(name, marked) for marked in _flat(units) for name in marked.category.split(",")]
    figures = _yes_figures([marked for _, marked in every])
    for name in sorted({name for name, _ in every} - {""}):
        figures |= {f"{name} {key}": value for key, value in _yes_figures([m for n, m in every if n == name]).items()}
    return figures


def _yes_figures(marks: Sequence[Marked]) -> dict[str, float]:
    said = [marked.mark.extracted == "Yes" for marked in marks]
    true = [marked.truth[0] == "Yes" for marked in marks]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    precision, recall = hits / max(sum(said), 1), hits / max(sum(true), 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {
        "f1": 100 * f1, "accuracy": percent(marks), "precision": 100 * precision, "recall": 100 * recall,
        "share_of_yes": 100 * _mean([float(s) for s in said]),
    }  # fmt: skip


def amber(units: Units) -> dict[str, float]:
    """Return the mean of the accuracies of attribute, existence and relation (arXiv 2311.07397, yes/no part)."""
    kinds = by_category(_flat(units))
    return {"mean_accuracy": _mean(list(kinds.values())), **kinds}


def ocrbench(units: Units) -> dict[str, float]:
    """Return the number of answers that hold a truth: of 1000 in the full set (arXiv 2305.07895)."""
    every = _flat(units)
    figures = {"final_score": sum(marked.score for marked in every), "percent": percent(every)}
    names = sorted({marked.category for marked in every} - {""})
    return figures | {name: sum(marked.score for marked in every if marked.category == name) for name in names}


def mm_vet(units: Units) -> dict[str, float]:
    """Return 100 times the mean grade, and the same per ability; an item counts for each of its abilities."""
    every = _flat(units)
    figures = {"mean_grade": percent(every)}
    for ability in ABILITIES:
        marks = [marked for marked in every if ability in marked.category]
        if marks:
            figures[ability] = percent(marks)
    return figures


def relative(units: Units) -> dict[str, float]:
    """Return 100 times the sum of our grades over the sum of the reference's (LLaVA-Bench, arXiv 2304.08485)."""
    every = _flat(units)
    figures = {"relative_score": _ratio(every)}
    for name in sorted({marked.category for marked in every} - {""}):
        figures[name] = _ratio([marked for marked in every if marked.category == name])
    return figures | {
        "our_grade": 10 * _mean([marked.score for marked in every]),
        "reference_grade": 10 * _mean([marked.mark.facts["reference"] for marked in every]),
    }


def _ratio(marks: Sequence[Marked]) -> float:
    reference = sum(marked.mark.facts["reference"] for marked in marks)
    return 100 * sum(marked.score for marked in marks) / reference if reference else 0.0


def mmhal(units: Units) -> dict[str, float]:
    """Return the mean grade of 0 to 6 and the share of grades below 3 (MMHal-Bench, arXiv 2309.14525)."""
    every = _flat(units)
    figures = {
        "mean_grade": _mean([marked.score for marked in every]),
        "hallucination_rate": 100 * _mean([float(marked.score < LOWEST_MMHAL) for marked in every]),
    }
    for name in sorted({marked.category for marked in every} - {""}):
        figures[name] = _mean([marked.score for marked in every if marked.category == name])
    return figures


def chair(units: Units) -> dict[str, float]:
    """Return the rates of Object HalBench: lower is better.

    ``response_rate``: answers with a wrong object over answers that name an object. ``mention_rate``: wrong objects
    over objects named, each once per answer. ``recall``: true objects that are named. ``silent_rate``: answers that
    name no object, which the first rate cannot see. Source: RLAIF-V, arXiv 2405.17220; CHAIR, arXiv 1809.02156.
    """
    facts = [marked.mark.facts for marked in _flat(units)]
    named = sum(bool(fact["named"]) for fact in facts)
    return {
        "response_rate": 100 * sum(bool(fact["wrong"]) for fact in facts) / max(named, 1),
        "mention_rate": 100 * sum(fact["wrong"] for fact in facts) / max(sum(fact["named"] for fact in facts), 1),
        "response_rate_of_all": 100 * sum(bool(fact["wrong"]) for fact in facts) / max(len(facts), 1),
        "recall": 100 * sum(fact["found"] for fact in facts) / max(sum(fact["true"] for fact in facts), 1),
        "silent_rate": 100 * (len(facts) - named) / max(len(facts), 1),
        "mean_words": _mean([float(fact["words"]) for fact in facts]),
    }


def amber_generative(units: Units) -> dict[str, float]:
    """Return AMBER's four: CHAIR, cover, hal and cog, in percent; CHAIR first, lower is better (arXiv 2311.07397)."""
    facts = [marked.mark.facts for marked in _flat(units)]

    return {
        "chair": _share(facts, "wrong", "named"),
        "cover": _share(facts, "found", "true"),
        "hal": 100 * sum(bool(fact["wrong"]) for fact in facts) / max(len(facts), 1),
        "cog": _share(facts, "likely", "named"),
    }


def _share(facts: Sequence[Mapping[str, Any]], part: str, whole: str) -> float:
    return 100 * sum(fact[part] for fact in facts) / max(sum(fact[whole] for fact in facts), 1)


def _flat(units: Units) -> list[Marked]:
    return [marked for unit in units for marked in unit]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
