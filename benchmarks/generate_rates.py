"""How many pictures a second each generator draws on one core, in processor time.

python benchmarks/generate_rates.py
"""

import statistics
import time

from handlens.data.generate import KINDS, generate

QUICK = ("lines", "scenes", "labels")
ROUNDS = 3


def main() -> None:
    """Print the median of interleaved rounds for every kind, with warm fonts."""
    kinds = [kind for kind in KINDS if kind != "mixed"]
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(ROUNDS + 1):
        for kind in kinds:
            count = 30 if kind in QUICK else 8
            start = time.process_time()
            for index in range(count):
                generate(kind, 9, number * 100 + index)
            if number:  # the first round warms the fonts
                rates[kind].append(count / (time.process_time() - start))
    for kind in kinds:
        print(f"{kind:10} {statistics.median(rates[kind]):6.0f} pictures/s")


if __name__ == "__main__":
    main()
