"""Compare what reads the pictures of a prompt: llama.cpp, and OpenVINO that hands over to llama.cpp.

    python benchmarks/prefill.py nano --image 1344x1344

Needs the extra 'openvino'. Visual tokens are made up; what is compared is processor time of one thread, in turns.
"""

import argparse
import json
import statistics
from pathlib import Path

import handlens
from handlens.engine.setup import PREFILLS, Setup
from handlens.measure.geometry import geometry_for
from handlens.measure.trial import Job, parse_size, require, run_trial


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--image", type=parse_size, default=(1344, 1344))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = handlens.PACKAGED.get(arguments.model, Path(arguments.model))
    width = geometry_for(arguments.model).language.width
    spent: dict[str, list[float]] = {name: [] for name in PREFILLS}
    peaks: dict[str, float] = {}
    tokens = 0
    for _ in range(arguments.rounds):
        for name in PREFILLS:
            setup = Setup(prefill=name, prefill_threads=1, decode_threads=1)
            job = Job(bundle=folder, setup=setup, images=(arguments.image,), parts=("language",), width=width,
                      max_tokens=4, limit_seconds=3600.0)  # fmt: skip
            figures = require(run_trial(job))
            tokens = figures["prompt_tokens"]
            spent[name].append(figures["phases"]["prefill"]["processor_seconds"])
            peaks[name] = round(figures["peak_bytes"] / 1e6)
    medians = {name: round(statistics.median(values), 4) for name, values in spent.items()}
    ratio = round(medians["llama.cpp"] / medians["openvino"], 3)
    print(json.dumps({"tokens": tokens, "processor_seconds": medians, "times_faster": ratio, "peak_megabytes": peaks}))


if __name__ == "__main__":
    main()
