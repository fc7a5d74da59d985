"""What a phase needs once, before its first step: eyes that know places, and eyes that fit the reader.

Boundary: a model and a phase in, the model changed in place.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file

from handlens.config import HandlensConfig
from handlens.data.generate import KINDS
from handlens.model.vlm import HandlensModel, SliceBatch
from handlens.train.cells import CellTables, align
from handlens.train.feed import batches
from handlens.train.loop import Report
from handlens.train.phases import Phase, Recipe
from handlens.train.warmstart import localise

WARM_START_BATCHES = 12
"""Batches from which the places of a fresh resampler are fitted."""


def prepare(
    model: HandlensModel, config: HandlensConfig, recipe: Recipe, phase: Phase, eyes: Path | None, report: Report
) -> None:
    """Do what a phase needs once, before its first step; ``eyes`` is the file of tables to which it may join."""
    if phase.name == "warmup" and set(phase.mixture) <= set(KINDS):
        fitted = warm_start(model, config, recipe, phase)
        report({"phase": phase.name, "step": 0, "of": phase.steps, "place_r2": round(fitted, 4)})
    if phase.name == "join" and eyes is not None:
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
        slices = batch.slices.to(model.resampler.proj)
        seen = model.vpm(slices.patches, slices.position_ids, slices.is_real)
        rows = model.resampler.compress(seen, slices.key_positions, slices.is_real).flatten(0, 1)
        labels = batch.labels.flatten(0, 1).to(rows.device)
        # Most cells are empty; as many of them as there are others say enough.
        filled = (labels > 0).any(-1)
        empty = torch.nonzero(~filled)[: int(filled.sum()), 0]
        keep = torch.cat([torch.nonzero(filled)[:, 0], empty])
        before.append(rows[keep])
        wanted.append(tables(labels[keep][None])[0])
    matrix, fitted = align(torch.cat(before), torch.cat(wanted))
    model.resampler.proj.copy_(matrix)
    return fitted


def warm_start(model: HandlensModel, config: HandlensConfig, recipe: Recipe, phase: Phase) -> float:
    """Localise a fresh resampler on pictures of the phase to come; return R squared."""
    probe = replace(phase, objective="reading", sides_px=(config.slicing.side_px,), name="warmstart")

    def slices() -> Iterator[SliceBatch]:
        for batch in islice(batches(probe, config, None, seed=recipe.seed), WARM_START_BATCHES):
            assert batch.slices is not None
            yield batch.slices.to(model.resampler.proj)

    return localise(model, slices())
