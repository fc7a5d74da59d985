"""Seconds from the shell prompt to the help, and to the first word of an answer.

Runs the installed ``handlens`` as a user would. Prints a table, or JSON with ``--json``.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

RECEIPT = Path(__file__).parents[1] / "examples" / "receipt.png"


def seconds_to_first_byte(command: list[str]) -> float:
    """Start a process and return the seconds until it writes its first byte to stdout."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
        errors = process.stderr.read().decode()
    if process.returncode or not first:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}: {errors.strip()}")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each command; the first one is cold")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    program = shutil.which("handlens")
    if program is None:
        sys.exit("first_word: handlens is not on the path; run `pip install .` in this environment")
    commands = {
        "help": [program, "--help"],
        "first word": [program, "ask", str(RECEIPT), "What is the total?"],
    }
    figures = {}
    for name, command in commands.items():
        seconds = [seconds_to_first_byte(command) for _ in range(options.repeat)]
        figures[name] = {
            "first_s": round(seconds[0], 3),
            "median_s": round(statistics.median(seconds), 3),
            "worst_s": round(max(seconds), 3),
        }
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{'':12}{'first':>8}{'median':>8}{'worst':>8}   seconds, {options.repeat} runs")
    for name, row in figures.items():
        print(f"{name:12}" + "".join(f"{value:8.3f}" for value in row.values()))


if __name__ == "__main__":
    main()
