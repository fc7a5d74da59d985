"""The formula of a step's work against what torch counts."""

from dataclasses import replace

import pytest

from handlens.model import packing
from handlens.train.feed import batches
from handlens.train.flops import Load, count_step, load_of, step_flops
from handlens.train.learner import Learner

CASES = {
    "text": {"objective": "text", "trains": ("language",), "slicing": False},
    "tower": {"objective": "reading", "trains": ("vision",)},
    "gathered": {"objective": "gather", "trains": ("vision",)},
    "told cells": {"objective": "layout", "trains": ("language",)},
    "resampler": {"objective": "cells", "trains": ("resampler",)},
    "tower below a frozen resampler": {"objective": "cells", "trains": ("vision",)},
    "everything": {"objective": "answers", "trains": ("vision", "resampler", "language")},
    "eyes of a frozen reader": {"objective": "answers", "trains": ("vision", "resampler")},
    "resampler of a frozen reader": {"objective": "answers", "trains": ("resampler",)},
}


@pytest.mark.parametrize("name", CASES)
def test_formula_is_what_torch_counts(fresh, config, sft, tokenizer, name):
    phase = replace(sft, pictures_per_step=1, **CASES[name])
    model = fresh()
    model.llm.set_attn_implementation(packing.NAME)
    learner = Learner(model, config, phase, tokenizer)
    batch = next(batches(phase, config, tokenizer, seed=4))
    assert count_step(learner, [batch]) == pytest.approx(step_flops(config, phase, load_of(batch)), rel=1e-6)
    assert all(weight.grad is None for weight in learner.weights)


def test_one_token_by_hand(config, sft):
    """One token through two layers of width 128: 2 x (q, k, v, o and the MLP), attention on itself, one target."""
    phase = replace(sft, objective="text", trains=("language",))
    layer = 2 * 128 * (128 + 64 + 64 + 128) + 2 * 3 * 128 * 192 + 4 * 128
    word = 2 * 128 * config.language.vocab_size
    load = Load(slice_patches=(), segments=(1,), targets=1)
    assert step_flops(config, phase, load) == 3 * (2 * layer + word)
