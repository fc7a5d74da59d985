"""Measure the loop guard on tables that must stay whole and on loops that must end.

python benchmarks/loop_guard.py --count 2000
"""

import argparse
import random
import statistics

import handlens
from handlens.core.loops import LoopGuard
from handlens.core.tokenizer import Tokenizer

WORDS = "total apple bread 12.50 3.40 the of red blue is a yes no 0 1 2025 EUR Coffee left circle".split()


def first_loop(ids: list[int]) -> int | None:
    """Return how many tokens were said when the guard spoke; None when it never did."""
    guard = LoopGuard()
    return next((place for place, token in enumerate(ids, 1) if guard.push(token)), None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    count = parser.parse_args().count
    from handlens.data.generate import generate

    nano = Tokenizer.from_file(handlens.PACKAGED["nano"] / "tokenizer.json")
    draw = random.Random(1)
    stopped = checked = 0
    for index in range(count):
        record = generate("tables", 1, index)
        for turn in record.turns:
            checked += 1
            stopped += first_loop(nano.encode(turn.answer).tolist()) is not None
    print(f"generated tables: {stopped} of {checked} answers ended by the guard")
    stopped = 0
    for _ in range(count):  # tables made to look like loops: up to 5 equal rows, columns of equal cells
        columns, rows = draw.randint(2, 8), draw.randint(3, 20)
        lines = [f"| {' | '.join(draw.choices(WORDS[:8], k=columns))} |", f"|{'---|' * columns}"]
        while len(lines) < rows + 2:
            lines += [f"| {' | '.join(draw.choices(WORDS, k=columns))} |"] * draw.randint(1, 5)
        stopped += first_loop(nano.encode("\n".join(lines)).tolist()) is not None
    print(f"tables with up to 5 equal rows in a row: {stopped} of {count} ended by the guard")
    found = []
    for _ in range(count):  # loops: a phrase again and again after a sensible beginning
        unit = " ".join(draw.choices(WORDS, k=draw.randint(1, 20))) + draw.choice([" ", "\n", ". "])
        begin = nano.encode(" ".join(draw.choices(WORDS, k=draw.randint(0, 30)))).tolist()
        found.append(first_loop(begin + nano.encode(unit * 400).tolist()[:1024]))
    missed = sum(place is None for place in found)
    said = [place for place in found if place is not None]
    middle = statistics.median(said)
    print(f"loops: {missed} of {count} missed; ended after {middle:.0f} tokens (median), {max(said)} at most")


if __name__ == "__main__":
    main()
