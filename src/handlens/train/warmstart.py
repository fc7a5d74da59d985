"""Give a fresh resampler a first idea of place: query i begins by reading around cell i of the slice.

A small run cannot afford to discover locality. The tower learns to say where each patch lies (``place_codes``,
phase ``vision``); the map from patch features to place is then fitted by ridge regression on a few hundred slices.
Nothing leaves the official weight layout.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from handlens.model.vlm import HandlensModel, SliceBatch

_HARMONICS = 8
CODE = 4 * _HARMONICS
"""Numbers in the code of one place."""
SHARPNESS = 0.8
"""Logit per harmonic at which a head of a query reads its half of the cell, and a twentieth of what lies beside."""


def place_code(u: Float[Tensor, "n"], v: Float[Tensor, "n"], side: int) -> Float[Tensor, "n code"]:
    """Return sines and cosines whose inner product peaks where two places agree; units are cells."""
    waves = torch.arange(1, _HARMONICS + 1, device=u.device) * (math.pi / side)
    x, y = u[:, None] * waves, v[:, None] * waves
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


def patch_shapes(slices: SliceBatch, table_side: int) -> list[tuple[int, int]]:
    """Return rows and columns of patches of every slice, read from its rows of the position table."""
    shapes = []
    for number, ids in enumerate(slices.position_ids):
        count = len(ids) if slices.is_real is None else int(slices.is_real[number].sum())
        rows = len((ids[:count] // table_side).unique())
        shapes.append((rows, count // rows))
    return shapes


def place_codes(slices: SliceBatch, table_side: int, side: int) -> Float[Tensor, "slices patches code"]:
    """Return the code of the place of every patch in its slice, which is ``side`` cells wide and high; 0 at padding."""
    codes = torch.zeros(*slices.position_ids.shape, CODE, device="cpu")
    for row, (rows, columns) in zip(codes, patch_shapes(slices, table_side), strict=True):
        down, across = np.divmod(np.arange(rows * columns), columns)
        u = torch.from_numpy((across + 0.5) / columns * side).float()
        v = torch.from_numpy((down + 0.5) / rows * side).float()
        row[: rows * columns] = place_code(u, v, side)
    return codes


def query_codes(num_queries: int, heads: int) -> Float[Tensor, "heads queries code"]:
    """Return the code of the place that each head of each query reads.

    The heads of one query share its cell side by side, so together they read twice as many columns.
    """
    side = round(num_queries**0.5)
    index = torch.arange(num_queries)
    return torch.stack(
        [
            place_code(index % side + (head + 0.5) / heads, torch.div(index, side, rounding_mode="floor") + 0.5, side)
            for head in range(heads)
        ]
    )


@torch.no_grad()
def localise(model: HandlensModel, batches: Iterable[SliceBatch]) -> float:
    """Set the resampler's query and key projections in place; return R squared of the fitted places.

    Args:
        model: its tower must be trained, its resampler fresh.
        batches: slices of the kind that will be read.
    """
    resampler = model.resampler
    config = resampler.config
    side = round(config.num_queries**0.5)
    features, codes = [], []
    for slices in batches:
        values = resampler.ln_kv(resampler.kv_proj(model.vpm(slices.patches, slices.position_ids, slices.is_real)))
        real = torch.ones_like(slices.position_ids, dtype=torch.bool) if slices.is_real is None else slices.is_real
        features.append((values + slices.key_positions)[real])
        codes.append(place_codes(slices, model.vpm.config.table_side, side).to(values.device)[real])
    x, y = torch.cat(features).double(), torch.cat(codes).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    fitted = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    r_squared = 1 - float(((y - x @ fitted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())

    width, heads = config.width, config.num_heads
    size = width // heads
    query = resampler.ln_q(resampler.query)
    weight, bias = resampler.attn.in_proj_weight, resampler.attn.in_proj_bias
    for head, code_of_query in enumerate(query_codes(config.num_queries, heads)):
        wanted = code_of_query * (SHARPNESS * math.sqrt(size))
        solved = torch.linalg.pinv(query) @ wanted
        code = solved.shape[1]
        queries = slice(head * size, head * size + code)
        weight[queries] = solved.T
        bias[queries] = 0.0
        keys = slice(width + head * size, width + head * size + code)
        weight[keys] = fitted[:-1].T.float()
        bias[keys] = fitted[-1].float()
        # What is left of the head begins silent and is free to learn what to look for.
        weight[head * size + code : (head + 1) * size] *= 0.1
        weight[width + head * size + code : width + (head + 1) * size] *= 0.1
    word_size = model.llm.get_input_embeddings().weight.std()
    resampler.proj.mul_(word_size / resampler.proj.std() * width**-0.5)
    return r_squared
