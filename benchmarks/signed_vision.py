"""Compare an 8-bit vision half with unsigned weights, as they are stored, and with signed ones, in turns.

    python benchmarks/signed_vision.py 2b --rounds 3

Processor time of one thread per slice. Needs a processor with AVX-512 VNNI.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from handlens.engine import signed_weights
from handlens.engine.bundle import Bundle
from handlens.engine.vision import OnnxVision


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not signed_weights.pays_here():
        raise SystemExit("this processor has no AVX-512 VNNI; both forms would run the same")
    bundle = Bundle.open(arguments.bundle, verify=False)
    side = bundle.config.slicing.side_px
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, side, side)).astype(np.float32)
    halves = {}
    for name, pays in (("unsigned", False), ("signed", True)):
        signed_weights.pays_here = lambda pays=pays: pays  # type: ignore[assignment,misc]
        halves[name] = OnnxVision(bundle.folder / bundle.vision, bundle.config, threads=1)
        halves[name].encode(pixels)
    spent: dict[str, list[float]] = {name: [] for name in halves}
    tokens = {}
    for _ in range(arguments.rounds):
        for name, half in halves.items():
            begin = time.process_time()
            tokens[name] = half.encode(pixels)
            spent[name].append(time.process_time() - begin)
    medians = {name: round(statistics.median(values), 5) for name, values in spent.items()}
    ratio = round(medians["unsigned"] / medians["signed"], 3)
    is_equal = bool(np.array_equal(tokens["unsigned"], tokens["signed"]))
    print(json.dumps({"processor_seconds": medians, "times_faster": ratio, "same_bits": is_equal}))


if __name__ == "__main__":
    main()
