"""What to do, from what a model lost in fewer bits.

Boundary: losses in, a sentence or two out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlens.export.groups import GroupLoss, MixLoss
    from handlens.export.quality import TaskLoss

SURE = 0.05
"""Two-sided p below which a difference is taken for real."""
CLEAR = 0.01
"""Mean divergence, nats: about one likeliest token in a hundred changes."""
TELLING = 5.0
"""Points of 100; where a larger loss is still possible, the questions were too few."""
LARGE = 0.1


def advise(quant: str, tasks: "Sequence[TaskLoss]", groups: "Sequence[GroupLoss]", mixes: "Sequence[MixLoss]") -> str:
    """Return a recommendation in plain words; every number in it stands in the report."""
    *each, whole = tasks
    lost = [task for task in each if task.gap.value < 0 and task.gap.p < SURE]
    words = []
    if lost:
        names = ", ".join(f"{task.task} {task.gap.value:+.1f} points (p {task.gap.p:.2g})" for task in lost)
        words.append(f"{quant} loses on {names}.")
    else:
        interval = whole.gap.interval
        found = f"{whole.gap.value:+.1f} points, 95 % interval from {interval.low:+.1f} to {interval.high:+.1f}"
        if interval.low > -TELLING:
            words.append(f"On {whole.count} questions {quant} is not measurably worse than full precision ({found}).")
        else:
            words.append(
                f"{whole.count} questions are too few to tell what {quant} loses ({found}, p {whole.gap.p:.2g}); "
                "--questions asks more."
            )
    judged = [group for group in groups if group.divergence is not None]
    if judged:
        worst = max(judged, key=lambda group: group.divergence or 0.0)
        if (worst.divergence or 0.0) >= CLEAR:
            words.append(
                f"Most of it comes from {worst.group} ({worst.divergence:.3f} nats a token); store that in more bits."
            )
    here = next((mix for mix in mixes if mix.quant == quant), None)
    close = [mix for mix in mixes if mix.divergence < CLEAR]
    if close:
        best = min(close, key=lambda mix: mix.num_bytes)
        if here and best.quant != here.quant and (lost or here.divergence >= CLEAR or best.num_bytes < here.num_bytes):
            words.append(
                f"{best.quant} is the smallest that stays below {CLEAR} nats a token: {best.num_bytes / 1e6:.2f} MB "
                f"against {here.num_bytes / 1e6:.2f} MB."
            )
        elif here:
            words.append(f"Keep {quant}." if not lost else f"By the divergence {quant} is the one to keep.")
    elif here and here.divergence >= LARGE:
        words.append("No mix of few bits stays close to this model; keep it in F16 or BF16.")
    return " ".join(words)
