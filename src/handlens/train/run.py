"""A run: the phases of a recipe in order, each resumable, each leaving a whole model folder.

Boundary: what ``handlens train`` calls. Calling it again with the same folder goes on where it stopped.
"""

import contextlib
import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate import generate
from handlens.errors import SettingError, TrainingError, did_you_mean
from handlens.model.checkpoint import load_weights, save_model
from handlens.model.vlm import HandlensModel, SliceBatch, build_model
from handlens.recipes import nano
from handlens.train.cells import EYES, CellTables, align
from handlens.train.feed import batches, pick_kind, picture_text
from handlens.train.loop import Report, train_phase
from handlens.train.phases import Phase, Recipe
from handlens.train.vocabulary import save_vocabulary, train_vocabulary
from handlens.train.warmstart import localise

VOCABULARY = "tokenizer.json"
WEIGHTS = "model.safetensors"
"""Names of files; the weights of a phase are there when it is finished."""

WARM_START_BATCHES = 12
"""Batches from which the places of a fresh resampler are fitted."""
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

    def slices() -> Iterator[SliceBatch]:
        for batch in islice(batches(probe, config, None, seed=recipe.seed), WARM_START_BATCHES):
            assert batch.slices is not None
            yield batch.slices

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
    tokenizer = open_run(recipe, out, report)
    config = module.model(tokenizer.vocab_size)
    torch.manual_seed(recipe.seed)
    model = build_model(config)
    order = [row.name for row in module.recipe().phases]
    last = out
    with pause_on_signals() as pause:
        for phase in recipe.phases:
            last = out / phase.name
            if (last / WEIGHTS).exists():
                load_weights(model, last / WEIGHTS)
                continue
            earlier = [out / before / WEIGHTS for before in order[: order.index(phase.name)]]
            if finished := [file for file in earlier if file.exists()]:
                load_weights(model, finished[-1])
            if not list((last / "state").glob("step-*")):
                prepare(model, config, recipe, phase, out, report)
            if not train_phase(model, config, phase, tokenizer, last, seed=recipe.seed, report=report, stop=pause):
                raise TrainingError(
                    f"stopped in phase {phase.name}; its checkpoint is in {last}; the same command goes on"
                )
            save_model(model, last, out / VOCABULARY)
    return last


def prepare(
    model: HandlensModel, config: HandlensConfig, recipe: Recipe, phase: Phase, out: Path, report: Report
) -> None:
    """Do what a phase needs once, before its first step."""
    if phase.name == "warmup":
        fitted = warm_start(model, config, recipe, phase)
        report({"phase": phase.name, "step": 0, "of": phase.steps, "place_r2": round(fitted, 4)})
    eyes = out / "layout" / EYES
    if phase.name == "sft" and eyes.exists():
        tables = CellTables(config.resampler.width)
        tables.load_state_dict(load_file(str(eyes)))
        fitted = join_eyes(model, config, recipe, phase, tables)
        report({"phase": phase.name, "step": 0, "of": phase.steps, "eyes_r2": round(fitted, 4)})


@torch.no_grad()
def join_eyes(model: HandlensModel, config: HandlensConfig, recipe: Recipe, phase: Phase, tables: CellTables) -> float:
    """Turn the resampler's output into the form in which phase ``layout`` learned to read; return R squared."""
    probe = replace(phase, objective="cells", name="join", zoomed_share=0.0)
    before, wanted = [], []
    for batch in islice(batches(probe, config, None, seed=recipe.seed), 24):
        assert batch.slices is not None and batch.labels is not None
        seen = model.vpm(batch.slices.patches, batch.slices.position_ids, batch.slices.is_real)
        rows = model.resampler.compress(seen, batch.slices.key_positions, batch.slices.is_real).flatten(0, 1)
        labels = batch.labels.flatten(0, 1)
        # Most cells are empty; as many of them as there are others say enough.
        filled = (labels > 0).any(-1)
        empty = torch.nonzero(~filled)[: int(filled.sum()), 0]
        keep = torch.cat([torch.nonzero(filled)[:, 0], empty])
        before.append(rows[keep])
        wanted.append(tables(labels[keep][None])[0])
    matrix, fitted = align(torch.cat(before), torch.cat(wanted))
    model.resampler.proj.copy_(matrix)
    return fitted


def open_run(recipe: Recipe, out: Path, report: Report) -> Tokenizer:
    """Make the folder of a run, write what it was asked, and return its vocabulary, trained when it is new.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    except OSError as cause:
        raise TrainingError(
            f"cannot write the run folder {out}: {cause.strerror}; give --out a folder that can be written"
        ) from None
    if not (out / VOCABULARY).exists():
        report({"phase": "vocabulary", "step": 0, "of": 1})
        save_vocabulary(train_vocabulary(vocabulary_texts(recipe), recipe.vocab_size), out / VOCABULARY)
    return Tokenizer.from_file(out / VOCABULARY)


@contextlib.contextmanager
def pause_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether SIGTERM or Ctrl-C asked to stop; a second Ctrl-C stops at once."""
    asked = False
    before: dict[signal.Signals, Any] = {}

    def on_signal(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    # Outside the main thread the caller owns the signals.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
