"""What a token of an answer costs beside the model, and what a batch of several costs in the model.

``python benchmarks/decoding.py nano``: processor time of one thread; the first needs no weights.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import handlens
from handlens.core.prompt import Prompt
from handlens.core.sampling import Sampling, generate
from handlens.core.tokenizer import TextStream, Tokenizer
from handlens.engine.bundle import Bundle
from handlens.engine.language import LlamaCppLanguage
from handlens.engine.room import Room

PROMPT = 64


def main() -> None:
    """Print one object per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    bundle = Bundle.open(Path(handlens.PACKAGED.get(arguments.model, arguments.model)))
    tokenizer = Tokenizer.from_file(bundle.folder / "tokenizer.json")
    for vocab_size in (282, 122_753):
        print(json.dumps({"vocabulary": vocab_size, "microseconds_per_token": beside(tokenizer, vocab_size)}))
    print(json.dumps({"steps_of_a_batch": batches(bundle, arguments.rounds)}))


def beside(tokenizer: Tokenizer, vocab_size: int) -> float:
    """Return what choosing, loop guard and text cost, the least of seven runs."""
    rows = np.random.default_rng(0).normal(0, 3, (64, vocab_size)).astype(np.float32)
    count = 400 if vocab_size < 1000 else 60
    runs = []
    for _ in range(7):
        turn = itertools.cycle(rows)

        def step(ids: Sequence[int], parents: Sequence[int], turn: "itertools.cycle[np.ndarray]" = turn) -> np.ndarray:
            return next(turn)[None]

        begin, stream = time.process_time(), TextStream(tokenizer)
        for token_id, _ in generate(rows[0], step, [3], Sampling(max_tokens=count), range(16)):
            stream.push(token_id % tokenizer.vocab_size)
        runs.append((time.process_time() - begin) / count)
    return round(min(runs) * 1e6, 1)


def batches(bundle: Bundle, rounds: int) -> dict[int, float]:
    """Return how many single steps a batch of so many tokens costs, by medians of turns."""
    half = LlamaCppLanguage(bundle.file(bundle.language), Room(prompt=PROMPT, answer=32), threads=1)
    prompt = Prompt(ids=np.arange(PROMPT) % 200 + 30, is_visual=np.zeros(PROMPT, dtype=bool))
    half.prefill(prompt, np.zeros((0, half.width), dtype=np.float32))
    seconds: dict[int, list[float]] = {count: [] for count in (1, 2, 4, 8, 16)}
    for _ in range(rounds):
        for count, found in seconds.items():
            begin = time.process_time()
            half.read([40 + 7 * place for place in range(count)])
            found.append(time.process_time() - begin)
            half.forget(count)
    single = statistics.median(seconds[1])
    return {count: round(statistics.median(found) / single, 2) for count, found in seconds.items()}


if __name__ == "__main__":
    main()
