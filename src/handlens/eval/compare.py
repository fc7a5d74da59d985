"""Two models on the same questions: the difference of a score, and whether it could be chance.

Boundary: results in, plain values out.
"""

from dataclasses import asdict
from typing import Any

from handlens.errors import SettingError
from handlens.eval.runner import Result, gather
from handlens.eval.stats import compare_statistic, compare_units
from handlens.eval.task import Task, Units


def compare(task: Task, first: Result, second: Result) -> dict[str, Any]:
    """Return first minus second with its interval, p and test; units are compared in pairs.

    Raises:
        SettingError: the questions or the graders differ.
    """
    if first.settings.get("questions_sha256") != second.settings.get("questions_sha256"):
        raise SettingError(
            f"{task.name}: {first.model} and {second.model} were asked different questions; use the same data"
        )
    if (first.grader["grader"], first.grader.get("prompt_sha256")) != (
        second.grader["grader"],
        second.grader.get("prompt_sha256"),
    ):
        raise SettingError(
            f"{task.name}: {first.model} and {second.model} were graded in two ways; use the same grader"
        )
    one, two = gather(first.items, first.marks), gather(second.items, second.marks)
    told = {"task": task.name, "recipe": first.recipe, "first": first.model, "second": second.model}
    if not task.is_mean or (task.unit_score is None and any(len(unit) > 1 for unit in one)):
        value, interval, p = compare_statistic(one, two, lambda units: next(iter(task.total(units).values())))
        return told | {
            "difference": value,
            "interval": asdict(interval),
            "p": p,
            "test": "swapped units, 1000 draws",
            "first_only": None,
            "second_only": None,
            "units": len(one),
        }
    gap = compare_units(_scores(task, one), _scores(task, two), scale=100.0)
    return told | {
        "difference": gap.value,
        "interval": asdict(gap.interval),
        "p": gap.p,
        "test": gap.test,
        "first_only": gap.first_only,
        "second_only": gap.second_only,
        "units": len(one),
    }


def _scores(task: Task, units: Units) -> list[float]:
    return [task.unit_score(unit) if task.unit_score else unit[0].score for unit in units]
