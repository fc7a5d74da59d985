"""Handlens-Bench as a task.

Boundary: the suite in ``eval.bench``, its rules and its total.
"""

from handlens.core.sampling import Sampling
from handlens.eval.bench import suite_hash, suite_items
from handlens.eval.bench.rules import RULES, refuses
from handlens.eval.task import LEADERBOARD, SHIPPED, Item, Mark, Recipe, Task, Units

_TOLD = "Answer with the text alone, in the language of the question. If it is not there, answer: not present"


def mark_bench(item: Item, answer: str) -> Mark:
    """Mark by the rule of the item's part; whether the answer refuses is kept beside it."""
    score = RULES[item.facts["rule"]](answer, item.truth[0])
    return Mark(score=float(score), extracted=answer[:200], facts={"refuses": refuses(answer)})


def total_bench(units: Units) -> dict[str, float]:
    """Return the mean over the parts, then groups and parts, and how often something that is there is denied."""
    every = [marked for unit in units for marked in unit]
    parts: dict[str, list[float]] = {}
    groups: dict[str, set[str]] = {}
    for marked in every:
        parts.setdefault(marked.category, []).append(marked.score)
        groups.setdefault(str(marked.facts["group"]), set()).add(marked.category)
    means = {name: 100 * sum(scores) / len(scores) for name, scores in sorted(parts.items())}
    there = [marked for marked in every if marked.facts["rule"] in ("text", "short", "number", "markdown")]
    denied = sum(bool(marked.mark.facts["refuses"]) for marked in there)
    figures = {"mean_of_parts": sum(means.values()) / len(means)}
    figures |= {
        f"group {name}": sum(means[part] for part in inside) / len(inside) for name, inside in sorted(groups.items())
    }
    return figures | means | {"wrongly_denied": 100 * denied / max(len(there), 1)}


TASKS = (
    Task(
        name="handlens-bench",
        title="Handlens-Bench",
        metric="mean of 16 parts, %",
        needs="nothing: it ships with the package",
        draw=suite_items,
        mark=mark_bench,
        total=total_bench,
        is_mean=False,
        version=suite_hash,
        recipes=(
            Recipe(name=SHIPPED, sampling=Sampling(max_tokens=200), source="the question alone"),
            Recipe(
                name=LEADERBOARD,
                template="{question}\n" + _TOLD,
                sampling=Sampling(max_tokens=400),
                source="the question with what a model has to be told that was not trained for it",
            ),
        ),
        notes="the second recipe tells how to answer: use it for models that were not trained on this form",
    ),
)
