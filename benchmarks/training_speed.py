"""Tokens per second of one model on the same records, trained three ways, interleaved.

python benchmarks/training_speed.py --rounds 3 --steps 4

``packed``: the loop of Handlens. ``trainer``: Trainer of transformers with batches padded to their longest.
``fixed``: the plain loop that pads every record to one length, as nanoVLM does without its packing.
All three have the same model, records, optimiser (AdamW), type of products and number of records per step. Tokens are
those of the records; padding does not count.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import islice

import torch
from torch import nn

from handlens.core.tokenizer import Tokenizer
from handlens.model import packing
from handlens.model.vlm import HandlensModel, build_model
from handlens.recipes import nano, smoke
from handlens.train.feed import Batch, batches
from handlens.train.learner import Learner, arithmetic
from handlens.train.run import vocabulary_texts
from handlens.train.vocabulary import train_vocabulary

IGNORED = -100


def pad(batch: Batch, length: int | None) -> dict[str, object]:
    """Return a packed batch as rows of one length; None is the longest of them."""
    length = length or max(batch.lengths)
    parts = [row.split(batch.lengths) for row in (batch.ids, batch.is_visual, batch.targets)]
    rows: list[list[torch.Tensor]] = []
    for values, empty in zip(parts, (0, False, IGNORED), strict=True):
        rows.append([nn.functional.pad(value, (0, length - len(value)), value=empty) for value in values])
    mask = [nn.functional.pad(torch.ones(count, dtype=torch.long), (0, length - count)) for count in batch.lengths]
    ids, visual, labels = (torch.stack(row) for row in rows)
    return {"input_ids": ids, "is_visual": visual, "labels": labels, "attention_mask": torch.stack(mask),
            "slices": batch.slices}  # fmt: skip


def packed(model: HandlensModel, some: list[Batch], learner: Learner) -> None:
    """Train as Handlens does."""
    model.llm.set_attn_implementation(packing.NAME)
    for step, batch in enumerate(some):
        learner.learn(batch, step)


def trainer(model: HandlensModel, some: list[Batch], precision: str) -> None:
    """Train with the Trainer of transformers."""
    from transformers import Trainer, TrainingArguments

    class PlainTrainer(Trainer):
        def get_train_dataloader(self) -> list[dict[str, object]]:
            return [pad(batch, None) for batch in some]

    model.llm.set_attn_implementation("sdpa")
    with tempfile.TemporaryDirectory() as folder:
        asked = TrainingArguments(
            output_dir=folder, max_steps=len(some), per_device_train_batch_size=1, learning_rate=1e-4, report_to=[],
            save_strategy="no", logging_strategy="no", remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
            optim="adamw_torch_fused", max_grad_norm=1.0, bf16=precision == "bfloat16",
        )  # fmt: skip
        PlainTrainer(model=model, args=asked, train_dataset=some).train()


def fixed(model: HandlensModel, some: list[Batch], length: int, precision: str) -> None:
    """Train in a plain loop on rows of one length."""
    model.llm.set_attn_implementation("sdpa")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for batch in some:
        with arithmetic("cpu", precision):
            loss = model(**pad(batch, length)).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--steps", type=int, default=4)
    asked.add_argument("--pictures", type=int, default=8)
    asked.add_argument("--small", action="store_true", help="the model of nano:smoke in place of nano's")
    asked.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of all three")
    given = asked.parse_args()
    torch.set_num_threads(1)
    module = smoke if given.small else nano
    recipe = module.recipe()
    tokenizer = Tokenizer(train_vocabulary(vocabulary_texts(recipe, 100), recipe.vocab_size))
    config = module.model(tokenizer.vocab_size)
    phase = replace(
        recipe.only("sft").phases[0], mixture={"scenes": 0.4, "labels": 0.3, "lines": 0.3}, cells_weight=0.0,
        slices_per_step=10**6, pictures_per_step=given.pictures, optimiser="adamw", rate=1e-4, slicing=False,
        precision=given.precision,
    )  # fmt: skip
    some = list(islice(batches(phase, config, tokenizer, seed=1), given.steps))
    longest = max(length for batch in some for length in batch.lengths)
    tokens = sum(sum(batch.lengths) for batch in some)
    places = {
        "packed": tokens,
        "trainer": sum(max(batch.lengths) * len(batch.lengths) for batch in some),
        "fixed": sum(longest * len(batch.lengths) for batch in some),
    }
    seconds: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(given.rounds):
        for name in places:
            torch.manual_seed(1)
            model = build_model(config).train()
            learner = Learner(model, config, phase, tokenizer) if name == "packed" else None
            start = time.process_time()
            if learner is not None:
                packed(model, some, learner)
            elif name == "trainer":
                trainer(model, some, given.precision)
            else:
                fixed(model, some, longest, given.precision)
            seconds[name].append(time.process_time() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name in places:
        print(
            json.dumps(
                {
                    "way": name,
                    "tokens_per_processor_second": round(tokens / middle[name], 1),
                    "padded_share": round(1 - tokens / places[name], 3),
                    "times_as_fast_as_trainer": round(middle["trainer"] / middle[name], 2),
                    "rounds": [round(value, 2) for value in seconds[name]],
                }
            )
        )


if __name__ == "__main__":
    main()
