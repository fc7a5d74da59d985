"""What the report recommends, from losses that are given."""

from dataclasses import replace

from handlens.eval.stats import compare_units
from handlens.export.advice import advise
from handlens.export.groups import GroupLoss, MixLoss
from handlens.export.quality import TaskLoss

GROUP = GroupLoss(group="MLP, down", kinds={"Q4_0": 4}, num_bytes=9, weight_error=0.1, divergence=0.2, same_choice=0.9)
MIXES = (
    MixLoss(quant="Q8_0", num_bytes=8_000_000, divergence=0.001, same_choice=1.0),
    MixLoss(quant="Q5_K_M", num_bytes=5_000_000, divergence=0.005, same_choice=1.0),
    MixLoss(quant="Q4_0", num_bytes=4_000_000, divergence=0.3, same_choice=0.9),
)


def task(name: str, given: list[float]) -> TaskLoss:
    gap = compare_units(given, [1.0] * len(given), scale=100.0)
    return TaskLoss(task=name, count=len(given), full=100.0, given=100 * sum(given) / len(given), gap=gap)


def test_a_sure_loss_is_named_with_its_cause_and_a_way_out() -> None:
    # Ten of twelve answers are lost: McNemar's exact p is 2 / 2**10.
    said = advise(
        "Q4_0", (task("tables", [0.0] * 10 + [1.0] * 2), task("all", [0.0] * 10 + [1.0] * 2)), (GROUP,), MIXES
    )
    assert said.startswith("Q4_0 loses on tables -83.3 points (p 0.002).")
    assert "Most of it comes from MLP, down (0.200 nats a token)" in said
    assert "Q5_K_M is the smallest that stays below 0.01 nats a token: 5.00 MB against 4.00 MB." in said


def test_what_loses_nothing_is_kept_and_the_smaller_is_named() -> None:
    fine = (task("tables", [1.0] * 12), task("all", [1.0] * 12))
    quiet = replace(GROUP, divergence=0.001)
    assert advise("Q5_K_M", fine, (quiet,), MIXES).endswith(
        "(+0.0 points, 95 % interval from +0.0 to +0.0). Keep Q5_K_M."
    )
    assert "Q5_K_M is the smallest that stays below" in advise("Q8_0", fine, (quiet,), MIXES)
    # A few questions show nothing, but logits do.
    assert "Q5_K_M is the smallest" in advise("Q4_0", fine, (quiet,), MIXES)
    assert advise("Q4_0", fine, (quiet,), MIXES[2:]).endswith("keep it in F16 or BF16.")


def test_few_questions_with_a_wide_interval_are_no_proof_of_quality() -> None:
    # One of twelve answers is lost: p is 1, but a quarter of the points could be gone.
    unsure = (task("tables", [0.0] + [1.0] * 11), task("all", [0.0] + [1.0] * 11))
    said = advise("Q5_K_M", unsure, (replace(GROUP, divergence=0.001),), MIXES)
    assert said.startswith("12 questions are too few to tell what Q5_K_M loses (-8.3 points, 95 % interval from -")
    assert "--questions asks more." in said
