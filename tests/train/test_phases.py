"""The rows of the curriculum."""

from dataclasses import fields, replace

import pytest

from handlens.data.generate import LANGUAGES
from handlens.data.generate.language import language
from handlens.errors import SettingError
from handlens.recipes import nano, smoke
from handlens.train.distributed import World
from handlens.train.phases import LIMITS, WHOLE_LIMITS, Phase, Recipe


def test_rate_rises_stays_and_falls_to_a_tenth(sft):
    phase = replace(sft, rate=1.0, steps=20, warmup_steps=4, decay_share=0.5)
    rates = [phase.rate_at(step) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:11] == [1.0] * 7
    # Half way down the last ten steps: 1 - 0.9 * 5/10; the last step stands at 9/10 of the way.
    assert rates[15] == pytest.approx(0.55)
    assert rates[19] == pytest.approx(0.19)
    assert phase.rate_at(20) == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_phase_shorter_than_its_warm_up_never_reaches_the_peak(sft):
    phase = replace(sft, rate=1.0, steps=2, warmup_steps=4)
    assert [phase.rate_at(step) for step in range(2)] == [0.25, 0.5]


def test_rows_that_cannot_run_are_refused(sft):
    with pytest.raises(SettingError, match=r"^phase sft: steps is 0; at least 1 is needed$"):
        replace(sft, steps=0)
    with pytest.raises(SettingError, match=r"^phase sft: the mixture is empty; name at least one kind of record$"):
        replace(sft, mixture={})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("warmup_steps", -7, "warmup_steps is -7; at least 0 is needed"),
        ("decay_share", 9.0, "decay_share is 9.0; at most 1 is needed"),
        ("slices_per_step", -4, "slices_per_step is -4; at least 1 is needed"),
        ("rate", -1.0, "rate is -1.0; at least 0 is needed"),
        ("rate", float("inf"), "rate is inf; a finite number is needed"),
        ("beta2", 2.0, "beta2 is 2.0; at most 0.9999 is needed"),
        ("steps", 10**400, f"steps is {10**400}; at most 1000000000 is needed"),
    ],
)
def test_numbers_outside_their_limits_are_refused(sft, name, value, words):
    with pytest.raises(SettingError) as error:
        replace(sft, **{name: value})
    assert str(error.value) == f"phase sft: {words}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("report_steps", 0, "report_steps is 0; at least 1 is needed"),
        ("checkpoint_seconds", float("nan"), "checkpoint_seconds is nan; a finite number is needed"),
        ("checkpoint_seconds", -1.0, "checkpoint_seconds is -1.0; at least 0 is needed"),
        ("vocabulary_records", 0, "vocabulary_records is 0; at least 1 is needed"),
        ("seed", -1, "seed is -1; at least 0 is needed"),
        ("seed", 2**63, "seed is 9223372036854775808; at most 9223372036854775807 is needed"),
    ],
)
def test_numbers_of_a_recipe_outside_their_limits_are_refused(sft, name, value, words):
    with pytest.raises(SettingError) as error:
        Recipe(name="tiny", phases=(sft,), **{name: value})
    assert str(error.value) == f"recipe tiny: {words}"


@pytest.mark.parametrize(("row", "limits"), [(Phase, LIMITS), (Recipe, WHOLE_LIMITS)])
def test_every_number_has_limits(row, limits):
    assert {field.name for field in fields(row) if field.type in (int, float)} == set(limits)


def test_a_phase_without_languages_is_refused(sft):
    with pytest.raises(SettingError, match=r"^phase sft: languages is empty; name at least one, such as en$"):
        replace(sft, languages={})


def test_a_phase_that_asks_nothing_is_refused(sft):
    with pytest.raises(SettingError, match=r"^phase sft: turns_per_picture is 0; at least 1 is needed$"):
        replace(sft, turns_per_picture=0)


def test_nano_shows_every_language_and_each_of_tier_b_rarely():
    shares = nano.recipe().only("multilingual").phases[0].languages
    assert set(shares) == set(LANGUAGES)
    assert sum(shares.values()) == pytest.approx(1.0)
    tiers = {code: language(code).tier for code in shares}
    assert {tiers[code] for code in nano.TIER_A} == {"A"}
    assert all(share < 0.005 for code, share in shares.items() if tiers[code] == "B")
    before = {code for phase in nano.recipe().phases[:-2] for code in phase.languages}
    assert before == {"en", *nano.TIER_A}


def test_the_recipe_for_trying_a_machine_has_every_phase_of_nano():
    phases = [phase.name for phase in nano.recipe().phases]
    assert [phase.name for phase in smoke.recipe().phases] == phases
    assert [phase.objective for phase in smoke.recipe().phases] == [row.objective for row in nano.recipe().phases]


def test_one_phase_of_a_recipe(sft, vision):
    recipe = Recipe(name="tiny", phases=(vision, sft))
    assert recipe.only("sft").phases == (sft,)
    with pytest.raises(SettingError, match=r"^recipe tiny has no phase 'visoin'; did you mean 'vision'\?$"):
        recipe.only("visoin")


def test_the_recipe_for_trying_a_machine_runs_in_any_way_of_sharing():
    for phase in smoke.recipe().phases:
        assert World(mode="fsdp", size=2).streams(replace(phase, streams=2)) == range(0, 2, 2)
