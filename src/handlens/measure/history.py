"""What was predicted and what was measured: the planner's own error, and the factors that make it smaller.

Boundary: one file of JSON lines on this machine; sizes and seconds only, never a picture or a question.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from handlens.measure.plan import PHASES, Plan
from handlens.measure.trial import Trial

KEPT = 500
"""Runs that are remembered."""
CHILD_PHASES = {"load": ("load_vision", "load_language"), "encode": ("slice", "encode"), "prefill": ("prefill",),
                "decode": ("decode",)}  # fmt: skip
"""Phases of a plan -> phases of a measured run."""


def measured_phases(trial: Trial) -> dict[str, dict[str, float]]:
    """Return seconds and peak bytes of a run under the names of a plan."""
    found = (trial.figures or {})["phases"]
    return {
        name: {
            "seconds": sum(found[part]["seconds"] for part in parts),
            "peak_bytes": max(found[part]["peak_bytes"] for part in parts),
        }
        for name, parts in CHILD_PHASES.items()
        if all(part in found for part in parts)
    }


def compare(plan: Plan, trial: Trial, factors: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return predicted, measured and their relative error per phase (0.1: predicted 10 % too much).

    ``factors`` are the corrections that the plan was made with.
    """
    rows: list[dict[str, Any]] = []
    for name, found in measured_phases(trial).items():
        phase = plan.phase(name)
        rows.append(
            {
                "name": name,
                "predicted": {"peak_bytes": phase.peak_bytes, "seconds": round(phase.seconds, 4)},
                "measured": {"peak_bytes": int(found["peak_bytes"]), "seconds": round(found["seconds"], 4)},
                "peak_error": round(phase.peak_bytes / found["peak_bytes"] - 1, 4),
                "seconds_error": round(phase.seconds / found["seconds"] - 1, 4) if found["seconds"] else 0.0,
                "factor": (factors or {}).get(name, 1.0),
            }
        )
    peak = max(found["peak_bytes"] for found in measured_phases(trial).values())
    return {"phases": rows, "peak_error": round(plan.peak_bytes / peak - 1, 4)}


def history_file() -> Path:
    """Return where runs are remembered."""
    from platformdirs import user_state_path

    return user_state_path("handlens") / "plans.jsonl"


def remember(plan: Plan, comparison: Mapping[str, Any], processor: str, *, file: Path | None = None) -> None:
    """Append a run; the oldest are forgotten."""
    file = file or history_file()
    line = {"model": plan.model, "processor": processor, "slices": plan.num_slices, **comparison}
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = file.read_text(encoding="utf-8").splitlines()[-KEPT + 1 :] if file.is_file() else []
        file.write_text("\n".join([*lines, json.dumps(line)]) + "\n", encoding="utf-8")
    except OSError:
        pass


def recall(processor: str, *, file: Path | None = None) -> list[dict[str, Any]]:
    """Return the remembered runs on this processor; a damaged line is skipped."""
    file = file or history_file()
    found = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            run = json.loads(line)
            if run["processor"] == processor and isinstance(run["phases"], list):
                found.append(run)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def corrections(runs: Iterable[Mapping[str, Any]], model: str) -> dict[str, float]:
    """Return a factor for the seconds of every phase: the median of measured over predicted, of the model's own runs.

    ``predicted`` in a run has its factor in it already, so the raw prediction is what is stored beside it.

    >>> row = {"name": "encode", "predicted": {"seconds": 2.0}, "measured": {"seconds": 3.0}, "factor": 1.0}
    >>> corrections([{"model": "nano", "phases": [row]}], "nano")
    {'encode': 1.5}
    """
    ratios: dict[str, list[float]] = {name: [] for name in PHASES}
    for run in runs:
        if run["model"] != model:
            continue
        for row in run["phases"]:
            raw = row["predicted"]["seconds"] / (row.get("factor") or 1.0)
            if raw > 0 and row["measured"]["seconds"] > 0:
                ratios[row["name"]].append(row["measured"]["seconds"] / raw)
    return {name: round(statistics.median(values[-9:]), 4) for name, values in ratios.items() if values}


def own_error(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how wrong the planner has been here: runs, median and worst error of the peak."""
    errors = [abs(run["peak_error"]) for run in runs if "peak_error" in run]
    if not errors:
        return {"runs": 0}
    return {"runs": len(errors), "median_peak_error": round(statistics.median(errors), 4), "worst": max(errors)}
