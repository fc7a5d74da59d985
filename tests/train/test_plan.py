"""The dry run: sizes, prices, and what is marked as never published."""

from dataclasses import replace

import pytest

from handlens.errors import ModelError, SettingError
from handlens.model.checkpoint import save_model
from handlens.recipes import minicpm_v
from handlens.train.flops import Load, step_flops
from handlens.train.phases import Recipe
from handlens.train.plan import (
    FLOAT,
    MACHINES,
    held_bytes,
    machine_named,
    memory_of,
    part_sizes,
    plan_named,
    plan_recipe,
    price,
    schedule_of,
)


def test_sizes_are_those_of_the_model(fresh, config):
    model = fresh()
    own = {part: sum(weight.numel() for weight in getattr(model, name).parameters()) for part, name in
           (("vision", "vpm"), ("resampler", "resampler"), ("language", "llm"))}  # fmt: skip
    assert part_sizes(config) == own


def test_the_three_models_have_their_published_sizes():
    """arXiv 2408.01800, table 3: 2.8 B, 2.8 B, 8.5 B; the first two are told without the 0.28 B of the words."""
    sizes = [
        sum(part_sizes(version.model()).values()) for version in (minicpm_v.V1, minicpm_v.V2, minicpm_v.LLAMA3_V25)
    ]
    words = 122_753 * 2304
    assert [size / 1e9 for size in (sizes[0] - words, sizes[1] - words, sizes[2])] == pytest.approx(
        [2.8, 2.8, 8.5], abs=0.1
    )


@pytest.mark.parametrize("version", [minicpm_v.V1, minicpm_v.V2, minicpm_v.LLAMA3_V25])
def test_phases_follow_the_paper(version):
    phases = {phase.name: phase for phase in version.recipe().phases}
    assert phases["warmup"].trains == ("resampler",) and phases["warmup"].sides_px == (224,)
    assert phases["resolution"].trains == ("vision",) and phases["resolution"].sides_px == (448,)
    assert ("adaptive" in phases) == (version is not minicpm_v.V1)
    assert phases["warmup"].samples == phases["resolution"].samples == 200_000_000
    order = list(phases)
    assert order.index("sft1") + 1 == order.index("sft2")
    assert phases["sft1"].trains == ("vision", "resampler", "language")
    for phase in phases.values():
        assert {"rate", "slices_per_step", "optimiser"} <= set(phase.substitutes), "unpublished values are marked"
        assert phase.steps * phase.streams * phase.pictures_per_step == pytest.approx(phase.samples, rel=0.01)


def test_a_price_is_steps_times_batches(config, sft):
    load = Load(slice_patches=(64, 64), segments=(40,), targets=10)
    machine = MACHINES["8xA100"]
    cost = price(replace(sft, steps=10, streams=3), config, load, machine)
    assert cost.flops == 30 * step_flops(config, sft, load)
    assert (cost.slices, cost.tokens, cost.samples) == (60, 1200, 30)
    assert cost.hours == pytest.approx(cost.flops / (8 * machine.flops_per_second) / 3600)
    assert cost.frozen == ()


def test_steps_that_streams_take_alone_are_paid_and_told(config, sft):
    load = Load(slice_patches=(64,), segments=(40,), targets=10)
    cost = price(replace(sft, steps=10, streams=2, local_steps=4), config, load, MACHINES["8xA100"])
    assert cost.flops == 80 * step_flops(config, sft, load)
    assert cost.samples == 80
    assert cost.schedule.endswith("; every stream takes 4 steps alone in each")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"decay_share": 0.25}, "linear, 5 steps of warm-up, falls in the last 25 %"),
        ({"decay_share": 0.0}, "linear, 5 steps of warm-up, does not fall"),
        ({"schedule": "cosine"}, "cosine, 5 steps of warm-up"),
        ({"steps": 5}, "rises over 5 steps and the phase ends there or before"),
    ],
)
def test_schedules_in_words(sft, changed, words):
    assert schedule_of(replace(sft, **{"steps": 40, "warmup_steps": 5} | changed)) == words


def test_memory_falls_with_shares_and_with_recomputing(config, sft):
    load = Load(slice_patches=(64,) * 50, segments=(300,), targets=100)
    one = memory_of(config, sft, load, devices=1)
    assert memory_of(config, replace(sft, recompute=True), load, devices=1) < 0.7 * one
    assert memory_of(config, sft, load, devices=2) < one
    assert memory_of(config, replace(sft, trains=("resampler",)), load, devices=1) < one


def test_only_shares_divide_what_a_process_holds(config, sft):
    load = Load(slice_patches=(64,), segments=(40,), targets=10)
    alone = memory_of(config, sft, load, devices=1)
    machine = MACHINES["8xA100"]
    assert price(sft, config, load, machine, mode="ddp").memory_bytes == alone
    kept = alone - held_bytes(config, sft, load)
    assert alone - price(sft, config, load, machine).memory_bytes == pytest.approx(kept * 7 / 8, abs=1)


def test_an_adapter_has_slopes_and_moments_of_its_own_weights_alone(config, sft):
    load = Load(slice_patches=(64,), segments=(40,), targets=10)
    whole = memory_of(config, sft, load, devices=1)
    few = price(sft, config, load, replace(MACHINES["8xA100"], devices=1), learning=1000).memory_bytes
    assert whole - few == 3 * FLOAT * (sum(part_sizes(config).values()) - 1000)


def test_a_changed_phase_has_the_records_that_its_steps_take():
    plan = plan_named("minicpm-v-2.0:warmup", {"steps": "10"}, "8xA100")
    # 4,096 pictures in each of ten steps.
    assert plan["phases"][0]["samples"] == 40_960
    assert plan_named("minicpm-v-2.0:warmup", {}, "8xA100")["phases"][0]["samples"] == 200_000_000


def test_the_shape_is_that_of_the_model_to_begin_with(tiny, fresh, vocabulary, tmp_path):
    """The recipe has its own shape; a run takes that of ``--from``."""
    model = fresh()
    save_model(model, tmp_path / "base", vocabulary)
    own = {"vision": model.vpm, "resampler": model.resampler, "language": model.llm}
    plan = plan_named("nano:smoke:vision", {}, "8xA100", base=tmp_path / "base")
    assert {part: plan["weights"][part] for part in own} == {
        part: sum(weight.numel() for weight in module.parameters()) for part, module in own.items()
    }
    with pytest.raises(ModelError, match=rf"^no config.json in {tmp_path}/none; --from needs a model folder with "):
        plan_named("nano:smoke:vision", {}, "8xA100", base=tmp_path / "none")


def test_a_recipe_that_draws_its_data_is_priced_by_drawing(config, sft, tokenizer):
    recipe = Recipe(name="tiny", phases=(sft,))
    (cost,) = plan_recipe(recipe, config, tokenizer, MACHINES["8xH100"])
    assert cost.tokens > 0 and cost.slices >= sft.steps


def test_unknown_machines_are_told():
    with pytest.raises(SettingError, match=r"^unknown machine '8xA10'; did you mean '8xA100'\?$"):
        machine_named("8xA10")
