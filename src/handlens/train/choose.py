"""Which recipe, which phases of it, with which settings.

Boundary: words of the command line in, a ``Recipe`` out; nothing is trained here.
"""

from dataclasses import fields, replace
from typing import Any, get_args

from handlens.errors import SettingError, did_you_mean
from handlens.recipes import minicpm_v, nano, smoke
from handlens.train.phases import Phase, Recipe

RECIPES: dict[str, Any] = {
    "nano": nano,
    "nano:smoke": smoke,
    "minicpm-v-1.0": minicpm_v.V1,
    "minicpm-v-2.0": minicpm_v.V2,
    "minicpm-v-llama3-2.5": minicpm_v.LLAMA3_V25,
}
"""Whatever has ``recipe()`` and ``model(vocab_size)``, by name."""
CHOICES = ("optimiser", "schedule", "precision", "attention")
"""Fields of a phase that are one of a few words."""
INTERNAL = ("adapter", "dropout_seeded", "samples", "typical_tokens")
"""Fields of a phase that code sets and no user."""
COUNTED = ("steps", "streams", "local_steps", "pictures_per_step", "slices_per_step")
"""Fields that decide how many records a phase has: where one is set, a published number holds no more."""
WHOLE = {"seed": int, "checkpoint_seconds": float, "vocabulary_records": int, "report_steps": int}
"""Fields of a recipe that can be set."""


def resolve(name: str) -> tuple[Recipe, Any]:
    """Return the recipe of ``NAME``, ``NAME:all`` or ``NAME:phase`` and its module.

    Raises:
        SettingError: the name or the phase is unknown.
    """
    if name in RECIPES:
        return RECIPES[name].recipe(), RECIPES[name]
    base, _, phase = name.rpartition(":")
    if base not in RECIPES:
        base = base or phase
        raise SettingError(f"unknown recipe '{base}'{did_you_mean(base, RECIPES)}")
    recipe = RECIPES[base].recipe()
    return (recipe if phase in ("", "all") else recipe.only(phase)), RECIPES[base]


def apply_settings(recipe: Recipe, settings: dict[str, str]) -> Recipe:
    """Return the recipe with ``steps=10`` (every phase) or ``sft.steps=10`` (one phase) put in.

    Raises:
        SettingError: an unknown phase or field, or a value of the wrong type.
    """
    known: dict[str, Any] = {field.name: field.type for field in fields(Phase) if field.type in (int, float, bool)}
    known |= {field.name: get_args(field.type) for field in fields(Phase) if field.name in CHOICES}
    known = {name: kind for name, kind in known.items() if name not in INTERNAL}
    for key, text in settings.items():
        phase_name, _, name = key.rpartition(".")
        if name in WHOLE and not phase_name:
            whole: dict[str, Any] = {name: _number(key, text, WHOLE[name])}
            recipe = replace(recipe, **whole)
            continue
        if name not in known:
            raise SettingError(_unknown(phase_name, name, known))
        if phase_name and phase_name not in [row.name for row in recipe.phases]:
            raise SettingError(_no_phase(recipe, phase_name))
        value = _number(key, text, known[name])
        recipe = replace(
            recipe,
            phases=tuple(_changed(row, name, value) if phase_name in ("", row.name) else row for row in recipe.phases),
        )
    return recipe


def _unknown(phase_name: str, name: str, known: dict[str, Any]) -> str:
    if not phase_name:
        return f"unknown setting '{name}'{did_you_mean(name, known | WHOLE)}"
    if name in WHOLE:
        return (
            f"setting {phase_name}.{name} is for one phase; {name} is for the whole recipe: leave '{phase_name}.' out"
        )
    return f"unknown setting '{name}' in Phase{did_you_mean(name, known)}"


def _no_phase(recipe: Recipe, phase_name: str) -> str:
    chosen = [row.name for row in recipe.phases]
    every = [row.name for row in RECIPES[recipe.name].recipe().phases] if recipe.name in RECIPES else chosen
    if phase_name in every:
        return (
            f"phase '{phase_name}' of recipe {recipe.name} was not chosen, only '{', '.join(chosen)}' was; leave its "
            f"settings out, or train {recipe.name}:{phase_name} or {recipe.name}:all"
        )
    return f"recipe {recipe.name} has no phase '{phase_name}'{did_you_mean(phase_name, every)}"


def _changed(phase: Phase, name: str, value: Any) -> Phase:
    """Return the phase with a field put in; what was told of the value before goes."""
    gone = {name: value} | ({"samples": 0} if name in COUNTED else {})
    notes = {key: note for key, note in phase.substitutes.items() if key not in gone}
    return replace(phase, **gone, substitutes=notes)


def _number(key: str, text: str, kind: Any) -> Any:
    if isinstance(kind, tuple):
        if text not in kind:
            raise SettingError(f"setting {key} is '{text}'; known: {', '.join(kind)}")
        return text
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise SettingError(f"setting {key} is '{text}'; a {kind.__name__} is needed") from None
