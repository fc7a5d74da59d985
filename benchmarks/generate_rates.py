"""How many pictures a second each generator draws, and draws and writes, on one core, in processor time.

python benchmarks/generate_rates.py
"""

import statistics
import tempfile
import time
from pathlib import Path

from handlens.data.generate import KINDS, generate
from handlens.data.shards import write_shards

QUICK = ("lines", "scenes", "labels")
ROUNDS = 5


def main() -> None:
    """Print medians of interleaved rounds with warm fonts; writing means PNG, JSON, tar and manifest too."""
    kinds = [kind for kind in KINDS if kind != "mixed"]
    drawn: dict[str, list[float]] = {kind: [] for kind in kinds}
    written: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            count = 300 if kind in QUICK else 100
            for number in range(2):  # warms the fonts
                write_shards(kind, count, 100 + number, Path(folder) / kind)
        for number in range(ROUNDS):
            for kind in kinds:
                count = 150 if kind in QUICK else 50
                start = time.process_time()
                for index in range(count):
                    generate(kind, 2 * number, index)
                middle = time.process_time()
                write_shards(kind, count, 2 * number + 1, Path(folder) / kind)
                drawn[kind].append(count / (middle - start))
                written[kind].append(count / (time.process_time() - middle))
    for kind in kinds:
        draws, writes = statistics.median(drawn[kind]), statistics.median(written[kind])
        print(f"{kind:10} {draws:6.0f} drawn/s {writes:6.0f} written/s")


if __name__ == "__main__":
    main()
