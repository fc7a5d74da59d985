"""Attention of a training step in bfloat16 on a CPU: two products and a softmax against torch's fused kernel.

    python benchmarks/attention.py --rounds 5

Forward and back, interleaved, one thread, processor time, at the shapes of a step of nano; then whole steps of its last
phase: as they are, with the fused kernel, with directions made equal in float32, and in float32 altogether.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

from handlens.core.tokenizer import Tokenizer
from handlens.model import packing
from handlens.model.attention import attend
from handlens.model.checkpoint import load_config, load_model
from handlens.recipes import nano
from handlens.train.feed import batches
from handlens.train.learner import Learner

SHAPES = {
    "tower, 38 slices of 256 patches": (38, 3, 256, 256, False),
    "resampler, 64 queries": (38, 4, 64, 256, False),
    "language, 400 tokens": (1, 4, 400, 400, True),
    "language, 900 tokens": (1, 4, 900, 900, True),
}
"""Batch, heads, asked and read places of 64 numbers, causal or not."""


def fused(query, key, value, mask=None, *, is_causal=False, scale=None):
    """Attend as the models did before."""
    return F.scaled_dot_product_attention(
        query.to(value.dtype), key.to(value.dtype), value, attn_mask=mask, is_causal=is_causal, scale=scale
    )


def timed(work: Callable[[], object]) -> float:
    """Return the processor seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(name: str, one: list[float], other: list[float]) -> None:
    """Print the medians of two interleaved series and their ratio."""
    first, second = statistics.median(one), statistics.median(other)
    print(f"{name}: {1e3 * first:.1f} ms against {1e3 * second:.1f} ms, {second / first:.2f} times as fast", flush=True)


def compare_kernels(rounds: int) -> None:
    """Time both forms at every shape."""
    for name, (batch, heads, asked, read, is_causal) in SHAPES.items():
        places = [(batch, heads, count, 64) for count in (asked, read, read)]
        given = [torch.randn(place).bfloat16().requires_grad_() for place in places]
        slope = torch.randn(places[0]).bfloat16()
        times: dict[Callable, list[float]] = {attend: [], fused: []}

        def work(form, given=given, slope=slope, is_causal=is_causal) -> None:
            form(*given, is_causal=is_causal).backward(slope)

        for number in range(4 * rounds + 1):
            for form, found in times.items():
                seconds = timed(partial(work, form))
                if number:
                    found.append(seconds)
        ratio(name, times[attend], times[fused])


def compare_steps(rounds: int) -> None:
    """Time whole steps of the last phase of nano, as they are and with one thing as it was."""
    folder = Path(str(files("handlens"))) / "nano"
    config, tokenizer = load_config(folder), Tokenizer.from_file(folder / "tokenizer.json")
    phase = replace(nano.recipe().phases[-1], precision="bfloat16", head_of="")
    some = list(itertools.islice(batches(phase, config, tokenizer, seed=5), rounds + 1))
    ways = {"as it is": phase, "fused attention": phase, "optimiser in float32": phase,
            "all in float32": replace(phase, precision="float32")}  # fmt: skip
    learners = {}
    for name, one in ways.items():
        learners[name] = Learner(load_model(folder), config, one, tokenizer)
        learners[name].model.llm.set_attn_implementation(packing.NAME)
    learners["optimiser in float32"].optimisers["muon"].dtype = torch.float32
    times: dict[str, list[float]] = {name: [] for name in ways}
    for step, batch in enumerate(some):
        for name, learner in learners.items():
            with ExitStack() as changes:
                for part in ("vision", "resampler", "packing") if name == "fused attention" else ():
                    changes.enter_context(patch(f"handlens.model.{part}.attend", fused))
                seconds = timed(partial(learner.learn, batch, step))
            if step:
                times[name].append(seconds)
    for name in list(ways)[1:]:
        ratio(f"a step, against {name}", times["as it is"], times[name])


def main() -> None:
    """Print one line per shape and per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compare_kernels(arguments.rounds)
    compare_steps(arguments.rounds)


if __name__ == "__main__":
    main()
