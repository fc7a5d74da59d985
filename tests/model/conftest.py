"""A model of the true architecture, small enough to run in milliseconds, with weights that are all alive."""

import numpy as np
import pytest
import torch

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.patches import key_positions, position_ids
from handlens.model.vlm import HandlensModel, SliceBatch, build_model

SHAPES = ((3, 5), (8, 8), (1, 9))
"""Rows and columns of patches of three slices."""


@pytest.fixture(scope="session")
def config() -> HandlensConfig:
    return HandlensConfig(
        vision=VisionConfig(width=128, mlp_width=160, num_layers=2, num_heads=2, table_side=20),
        resampler=ResamplerConfig(num_queries=16, width=128, vision_width=128),
        language=LanguageConfig(vocab_size=90, width=128, mlp_width=192, num_layers=2, num_heads=4, num_kv_heads=2),
        slicing=SlicingConfig(side_px=112),
    )


def enliven(module: torch.nn.Module, seed: int = 3) -> None:
    """Give every weight, also biases and scales, a value that matters."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim == 1:
                weight.normal_(0.5, 0.5, generator=draw)
            else:
                weight.normal_(0.0, weight[0].numel() ** -0.5, generator=draw)


@pytest.fixture(scope="session")
def model(config: HandlensConfig) -> HandlensModel:
    model = build_model(config)
    enliven(model)
    return model.eval()


def padded(shapes: tuple[tuple[int, int], ...], config: HandlensConfig, seed: int = 0) -> SliceBatch:
    """Random slices of the given shapes, padded with values that are not zero."""
    draw = np.random.default_rng(seed)
    longest = max(rows * columns for rows, columns in shapes)
    patches = np.full((len(shapes), longest, 3 * 14 * 14), 7.0, dtype=np.float32)
    places = np.full((len(shapes), longest), 5, dtype=np.int64)
    keys = np.full((len(shapes), longest, config.resampler.width), -3.0, dtype=np.float32)
    is_real = np.zeros((len(shapes), longest), dtype=bool)
    for number, (rows, columns) in enumerate(shapes):
        count = rows * columns
        patches[number, :count] = draw.normal(size=(count, 588)).astype(np.float32)
        places[number, :count] = position_ids(rows, columns, table_side=config.vision.table_side)
        keys[number, :count] = key_positions(rows, columns, config.resampler.width)
        is_real[number, :count] = True
    return SliceBatch(*map(torch.from_numpy, (patches, places, keys, is_real)))


def alone(batch: SliceBatch, number: int) -> SliceBatch:
    """Slice ``number`` of a batch without padding and without a mask."""
    assert batch.is_real is not None
    real = batch.is_real[number]
    parts = (batch.patches, batch.position_ids, batch.key_positions)
    return SliceBatch(*(part[number][real][None] for part in parts), None)


@pytest.fixture
def slices(config: HandlensConfig) -> SliceBatch:
    return padded(SHAPES, config)
