"""A run: the phases of a recipe in order, each resumable, each leaving a whole model folder.

Boundary: what ``handlens train`` calls. Calling it again with the same folder goes on where it stopped.
"""

import json
import signal
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate import generate
from handlens.errors import SettingError, TrainingError, did_you_mean
from handlens.model.checkpoint import load_weights, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.recipes import nano
from handlens.train.feed import batches, pick_kind, picture_text
from handlens.train.loop import Report, train_phase
from handlens.train.phases import Phase, Recipe
from handlens.train.vocabulary import save_vocabulary, train_vocabulary
from handlens.train.warmstart import localise

RECIPES = {"nano": nano}
"""Modules with ``recipe()`` and ``model(vocab_size)``."""


def resolve(name: str) -> tuple[Recipe, Any]:
    """Return the recipe of ``NAME``, ``NAME:all`` or ``NAME:phase`` and its module.

    Raises:
        SettingError: the name or the phase is unknown.
    """
    base, _, phase = name.partition(":")
    if base not in RECIPES:
        raise SettingError(f"unknown recipe '{base}'{did_you_mean(base, RECIPES)}")
    recipe = RECIPES[base].recipe()
    return (recipe if phase in ("", "all") else recipe.only(phase)), RECIPES[base]


def apply_settings(recipe: Recipe, settings: dict[str, str]) -> Recipe:
    """Return the recipe with ``steps=10`` (every phase) or ``sft.steps=10`` (one phase) put in.

    Raises:
        SettingError: an unknown phase or field, or a value of the wrong type.
    """
    known = {field.name: field.type for field in fields(Phase) if field.type in (int, float, bool)}
    for key, text in settings.items():
        phase_name, _, name = key.rpartition(".")
        if name == "seed" and not phase_name:
            recipe = replace(recipe, seed=_number(key, text, int))
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
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise SettingError(f"setting {key} is '{text}'; a {kind.__name__} is needed") from None


def vocabulary_texts(recipe: Recipe, count: int = 4000) -> Iterator[str]:
    """Yield questions, answers and printed text of generated records."""
    import random

    mixture = recipe.phases[0].mixture
    for index in range(count):
        rng = random.Random(f"{recipe.seed}/vocabulary/{index}")
        record = generate(pick_kind(mixture, rng), rng.getrandbits(31), index)
        for turn in record.turns:
            yield turn.question
            if not turn.task.endswith(".read"):
                yield turn.answer
        yield picture_text(record)


def warm_start(model: HandlensModel, config: HandlensConfig, recipe: Recipe, phase: Phase) -> float:
    """Localise a fresh resampler on pictures of the phase to come; return R squared."""
    probe = replace(phase, objective="reading", sides_px=(config.slicing.side_px,), name="warmstart")

    def slices() -> Iterator[Any]:
        for batch in islice(batches(probe, config, None, seed=recipe.seed), 24):
            assert batch.slices is not None
            shapes = []
            real = batch.slices.is_real
            for number, ids in enumerate(batch.slices.position_ids):
                count = len(ids) if real is None else int(real[number].sum())
                rows = len((ids[:count] // config.vision.table_side).unique())
                shapes.append((rows, count // rows))
            yield batch.slices, shapes

    return localise(model, slices())


def train(name: str, out: Path, settings: dict[str, str] | None = None, report: Report = lambda row: None) -> Path:
    """Run a recipe in a folder and return the folder of the last phase.

    SIGTERM and Ctrl-C save a checkpoint and stop; the same call goes on from it.

    Raises:
        SettingError: unknown recipe, phase or setting.
        TrainingError: the run cannot go on.
    """
    recipe, module = resolve(name)
    recipe = apply_settings(recipe, settings or {})
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise TrainingError(f"cannot make the run folder {out}: {cause.strerror}") from None
    vocabulary = out / "tokenizer.json"
    if not vocabulary.exists():
        report({"phase": "vocabulary", "step": 0, "of": 1})
        save_vocabulary(train_vocabulary(vocabulary_texts(recipe), recipe.vocab_size), vocabulary)
    tokenizer = Tokenizer.from_file(vocabulary)
    config = module.model(tokenizer.vocab_size)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    torch.manual_seed(recipe.seed)
    model = build_model(config)
    pause = _pause_on_signals()
    order = [row.name for row in module.recipe().phases]
    last = out
    for phase in recipe.phases:
        last = out / phase.name
        if (last / "model.safetensors").exists():
            load_into(model, last)
            continue
        before = [out / earlier for earlier in order[: order.index(phase.name)]]
        for folder in reversed(before):
            if (folder / "model.safetensors").exists():
                load_into(model, folder)
                break
        last.mkdir(exist_ok=True)
        if phase.trains == ("resampler",) and not list((last / "state").glob("step-*")):
            fitted = warm_start(model, config, recipe, phase)
            report({"phase": phase.name, "step": 0, "of": phase.steps, "place_r2": round(fitted, 4)})
        if not train_phase(model, config, phase, tokenizer, last, seed=recipe.seed, report=report, stop=pause):
            raise TrainingError(f"stopped in phase {phase.name}; its checkpoint is in {last}; the same command goes on")
        save_model(model, last, vocabulary)
    return last


def load_into(model: HandlensModel, folder: Path) -> None:
    """Copy a finished phase's weights into the model."""
    with torch.no_grad():
        load_weights(model, folder / "model.safetensors")


def _pause_on_signals() -> Any:
    asked = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal asked
        asked = True

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            signal.signal(number, on_signal)
        except ValueError:  # not the main thread: the caller owns the signals
            break
    return lambda: asked
