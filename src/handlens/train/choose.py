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
    for key, text in settings.items():
        phase_name, _, name = key.rpartition(".")
        if name in WHOLE and not phase_name:
            whole: dict[str, Any] = {name: _number(key, text, WHOLE[name])}
            recipe = replace(recipe, **whole)
            continue
        if name not in known:
            raise SettingError(f"unknown setting '{name}' in Phase{did_you_mean(name, known)}")
        if phase_name and phase_name not in (names := [row.name for row in recipe.phases]):
            raise SettingError(f"recipe {recipe.name} has no phase '{phase_name}'{did_you_mean(phase_name, names)}")
        value = _number(key, text, known[name])
        recipe = replace(
            recipe,
            phases=tuple(
                replace(row, **{name: value}) if phase_name in ("", row.name) else row for row in recipe.phases
            ),
        )
    return recipe


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
