"""How much faster a step is when samples share rows instead of being padded; the same samples both ways.

``python benchmarks/packing.py --count 48``. Processor time of one thread, so that a busy machine counts little;
medians of interleaved runs.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from handlens.data.generate import generate
from handlens.data.pack import Budget, Length, lay_end_to_end, pack
from handlens.data.render import Rendered, open_target, render
from handlens.data.samples import talk
from handlens.model import packing
from handlens.model.vlm import HandlensModel, build_model
from handlens.recipes.nano import model as nano_shape


def language_step(model: HandlensModel, ids, visual, targets, **how) -> float:
    """Forward and backward of the language model; visual tokens are given, their gradient too."""
    embeddings = model.join(ids, visual, torch.zeros(int(visual.sum()) // 64, 64, 256, requires_grad=True))
    hidden = model.llm.model(inputs_embeds=embeddings, use_cache=False, **how).last_hidden_state
    learned = targets[:, 1:]
    loss = F.cross_entropy(model.llm.lm_head(hidden[:, :-1][learned]).float(), ids[:, 1:][learned], reduction="sum")
    loss.backward()
    return float(loss.detach())


def padded(model: HandlensModel, samples: list[Rendered], batch: int, length: int | None) -> float:
    model.llm.set_attn_implementation("sdpa")
    total = 0.0
    for start in range(0, len(samples), batch):
        group = samples[start : start + batch]
        longest = length or max(len(one.ids) for one in group)
        arrays = np.zeros((3, len(group), longest), dtype=np.int64)
        real = torch.zeros(len(group), longest, dtype=torch.long)
        for place, one in enumerate(group):
            for array, values in zip(arrays, (one.ids, one.is_visual, one.is_target), strict=True):
                array[place, : len(one.ids)] = values
            real[place, : len(one.ids)] = 1
        ids, visual, targets = map(torch.from_numpy, arrays)
        total += language_step(model, ids, visual.bool(), targets.bool(), attention_mask=real)
    return total


def packed(model: HandlensModel, samples: list[Rendered], tokens: int) -> float:
    model.llm.set_attn_implementation(packing.NAME)
    lengths = [Length(key=str(n), tokens=len(one.ids), slices=one.num_slices) for n, one in enumerate(samples)]
    total = 0.0
    for places in pack(lengths, Budget(tokens=tokens, slices=10_000)).rows:
        row = lay_end_to_end([samples[place] for place in places])
        total += language_step(
            model, torch.from_numpy(row.ids)[None], torch.from_numpy(row.is_visual)[None],
            torch.from_numpy(row.is_target)[None], position_ids=torch.from_numpy(row.positions)[None],
            segment_lengths=row.lengths,
        )  # fmt: skip
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=48, help="samples")
    parser.add_argument("--batch", type=int, default=8, help="samples of a padded batch")
    parser.add_argument(
        "--tokens", type=int, default=2048, help="tokens of a row, and of a batch padded to a fixed length"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = open_target()
    model = build_model(nano_shape(target.tokenizer.vocab_size))
    samples = []
    for index in range(args.count):
        record = generate("mixed", 11, index)
        pairs = [(turn.question, turn.answer) for turn in record.turns[:4]]
        samples.append(render(talk(pairs), [record.picture.size], target))
    samples = [one for one in samples if len(one.ids) <= args.tokens]
    ways = {
        "padded to the longest": lambda: padded(model, samples, args.batch, None),
        "padded to a fixed length": lambda: padded(model, samples, args.batch, args.tokens),
        "packed": lambda: packed(model, samples, args.tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = {}
    for _ in range(args.rounds):
        for name, run in ways.items():
            started = time.process_time()
            losses[name] = run()
            seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    num_tokens = sum(len(one.ids) for one in samples)
    print(f"{len(samples)} samples, {num_tokens} tokens, longest {max(len(one.ids) for one in samples)}")
    for name, median in medians.items():
        print(
            f"{name}: {median:.2f} s of one core, {median / medians['packed']:.2f} times as long, "
            f"loss {losses[name]:.3f}"
        )


if __name__ == "__main__":
    main()
