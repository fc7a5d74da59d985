"""Samples a second of one core for each station of the data engine, from which docs/scale.md computes.

``python benchmarks/data_rates.py --count 200``. Processor time, so that a busy machine counts little.
"""

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from handlens.data.check import look
from handlens.data.clean import Rules, examine
from handlens.data.formats import FORMATS, read_samples
from handlens.data.likeness import Neighbours
from handlens.data.noise import make_noisy
from handlens.data.pack import Budget, Length, pack
from handlens.data.render import open_target
from handlens.data.rewrite import ByRules, check_pair, parse
from handlens.data.shards import write_shards
from handlens.data.stream import Stream, measured_by, open_sources


def rate(name: str, count: int, work: Callable[[], object]) -> object:
    started = time.process_time()
    result = work()
    seconds = max(time.process_time() - started, 1e-6)
    print(f"{name}: {count / seconds:,.0f} samples a second of one core")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    count, target = args.count, open_target()
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "made"
        write_shards("mixed", count, 17, shards)
        size = sum(path.stat().st_size for path in shards.glob("*.tar")) / count
        print(f"{count} samples of {size / 1000:.1f} kB each")
        samples = list(read_samples(shards))
        examine(samples[0], Rules())  # imports and tables
        look(samples[0], target)
        rate("read", count, lambda: list(read_samples(shards)))
        seen = rate("clean (decode, hash, repair, rules)", count, lambda: [examine(one, Rules()) for one in samples])
        hashes = [one.hashes for one in seen]
        index = Neighbours()

        def dedupe() -> None:
            for one, sample in zip(hashes, samples, strict=True):
                if index.find(one, sample.text) is None:
                    index.add(sample.key, one, sample.text)

        rate("duplicates", count, dedupe)
        rate("check (decode, hash, render)", count, lambda: [look(one, target) for one in samples])
        rendered = [look(one, target).rendered for one in samples]
        lengths = [Length(key="", tokens=len(one.ids), slices=one.num_slices) for one in rendered if one is not None]
        many = (lengths * (20_000 // len(lengths) + 1))[:20_000]
        packing = rate(
            "pack (20,000 lengths, rows of 4,096 tokens)", 20_000, lambda: pack(many, Budget(tokens=4096, slices=64))
        )
        print(f"fill: {packing.fill:.4f}")
        rng = random.Random(1)
        captions = [make_noisy(sample.answers[0], rng) for sample in samples]

        def rewrite() -> None:
            for caption, reply in zip(captions, ByRules().write(captions), strict=True):
                pair = parse(reply)
                if pair is not None:
                    check_pair(pair, caption, {})

        rate("check of facts", count, rewrite)
        for name in ("parquet", "llava"):
            rate(f"convert to {name}", count, lambda name=name: FORMATS[name].write(iter(samples), Path(folder) / name))
        stream = Stream(
            sources=open_sources({shards: 1.0}), measure=measured_by(target), budget=Budget(tokens=4096, slices=64)
        )
        rows = rate("stream (read, render, pack)", count, lambda: list(itertools.islice(stream.rows(), 10)))
        print(f"stream: the rate above is for {sum(len(row.samples) for row in rows)} samples out and 128 that wait")


if __name__ == "__main__":
    main()
