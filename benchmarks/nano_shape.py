"""Choose the shape of nano by measurement: equal processor time for every variant, same pictures, same seed.

    python benchmarks/nano_shape.py depth --seconds 200
    python benchmarks/nano_shape.py side --seconds 200
    python benchmarks/nano_shape.py queries --seconds 200 --run runs/nano

``depth`` and ``side`` train the vision tower to name characters (phase ``vision``); the score is the share of all
characters of unseen pictures that are named rightly. ``queries`` trains a fresh resampler between the finished
phases ``vision`` and ``language`` of a run; the score is the next-token loss on unseen pictures.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.model import packing
from handlens.model.checkpoint import load_weights
from handlens.model.vlm import HandlensModel, build_model
from handlens.recipes import nano
from handlens.train.feed import batches
from handlens.train.learner import freeze, reading_loss, token_loss
from handlens.train.optim import build_optimisers
from handlens.train.phases import Phase
from handlens.train.prepare import warm_start
from handlens.train.reading import ReadingHead

CLEAN = 10**9
"""A ramp so long that every picture stays clean: what is compared is the shape, not the patience."""


def train_for(seconds: float, model: HandlensModel, config: HandlensConfig, phase: Phase, tokenizer: Tokenizer | None,
              head: ReadingHead | None) -> tuple[int, int]:  # fmt: skip
    """Train until the process has used the processor for ``seconds``; return steps and pictures."""
    named = [*freeze(model, phase), *(head.named_parameters() if head else [])]
    optimisers = build_optimisers(named, phase)
    begin, steps, pictures = time.process_time(), 0, 0
    for batch in batches(phase, config, tokenizer, seed=1):
        share = (time.process_time() - begin) / seconds
        if share >= 1:
            break
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = phase.rate * min(1.0, share * 20, (1 - share) / 0.3 + 0.05)
        loss, _ = reading_loss(model, head, batch) if head else token_loss(model, batch)
        for _, weight in named:
            weight.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in named], 1.0)
        for optimiser in optimisers.values():
            optimiser.step()
        steps, pictures = steps + 1, pictures + len(batch.lengths)
    return steps, pictures


@torch.no_grad()
def named_share(
    model: HandlensModel, head: ReadingHead, config: HandlensConfig, phase: Phase, count: int = 12
) -> float:
    """Return the share of all characters of unseen pages that are named rightly; collisions count as misses."""
    import random

    from handlens.data.generate import generate
    from handlens.train.feed import build_sample, collate

    right = total = 0
    for index in range(count * 4):
        record = generate("pages", 7, index, split="validation", level=0.0)
        side = phase.sides_px[0]
        batch = collate([build_sample(record, phase, config, None, side, random.Random(0))], config, 0)
        assert batch.slices is not None and batch.labels is not None
        # Score the finest view only: the cells where there are any, else the overview.
        first = 1 if len(batch.labels) > 1 else 0
        seen = model.vpm(batch.slices.patches, batch.slices.position_ids, batch.slices.is_real)[first:]
        labels = batch.labels[first:]
        for column, logits in enumerate(head.out(seen).split(head.sizes, dim=-1)[:4]):
            target = labels[..., column]
            right += int(((logits.argmax(-1) == target) & (target > 0)).sum())
        total += sum(glyph.char != " " for line in record.lines for glyph in line.glyphs)
    return right / total


def main() -> None:
    """Print one JSON line per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("depth", "side", "queries"))
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--run", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = nano.model()
    reading = replace(
        nano.recipe().only("vision").phases[0], mixture={"pages": 1.0}, ramp_pictures=CLEAN, slices_per_step=8
    )
    variants: list[tuple[str, HandlensConfig, Phase]]
    if arguments.what == "depth":
        variants = [
            (f"{layers} layers of {width}",
             replace(base, vision=replace(base.vision, num_layers=layers, width=width, num_heads=width // 64),
                     resampler=replace(base.resampler, vision_width=width)), reading)
            for layers, width in ((3, 192), (5, 192), (8, 192))
        ]  # fmt: skip
    elif arguments.what == "side":
        variants = [
            (f"{side} px", replace(base, slicing=replace(base.slicing, side_px=side)),
             replace(reading, sides_px=(side,), slices_per_step=round(8 * (224 / side) ** 2)))
            for side in (168, 224, 336)
        ]  # fmt: skip
    else:
        phase = replace(nano.recipe().only("resolution").phases[0], trains=("resampler", "language"), rate=1.5e-3,
                        mixture={"lines": 0.7, "scenes": 0.3}, slices_per_step=12, pictures_per_step=12,
                        ramp_pictures=CLEAN)  # fmt: skip
        variants = [
            (f"{count} queries", replace(base, resampler=replace(base.resampler, num_queries=count)), phase)
            for count in (16, 64, 100)
        ]
    for name, config, phase in variants:
        torch.manual_seed(1)
        tokenizer = None
        if arguments.what == "queries":
            tokenizer = Tokenizer.from_file(arguments.run / "tokenizer.json")
            config = replace(config, language=replace(config.language, vocab_size=tokenizer.vocab_size))
            model = build_model(config)
            for folder, part in (("vision", "vpm"), ("language", "llm")):
                source = build_model(nano.model(tokenizer.vocab_size))
                with torch.no_grad():
                    load_weights(source, arguments.run / folder / "model.safetensors")
                getattr(model, part).load_state_dict(getattr(source, part).state_dict())
            warm_start(model, config, nano.recipe(), phase)
            model.llm.set_attn_implementation(packing.NAME)
            steps, pictures = train_for(arguments.seconds, model, config, phase, tokenizer, None)
            with torch.no_grad():
                unseen = islice(batches(phase, config, tokenizer, seed=9, split="validation"), 12)
                score = sum(float(token_loss(model, batch)[0]) for batch in unseen) / 12
            row = {"variant": name, "loss": round(score, 4)}
        else:
            model = build_model(config)
            head = ReadingHead(config.vision.width)
            steps, pictures = train_for(arguments.seconds, model, config, phase, None, head)
            row = {"variant": name, "named": round(named_share(model, head, config, phase), 4)}
        print(json.dumps(row | {"seconds": arguments.seconds, "steps": steps, "pictures": pictures}), flush=True)


if __name__ == "__main__":
    main()
