"""What rewriting is worth: two equal small runs, one on raw captions of the web kind, one on rewritten ones.

``python benchmarks/rewriting.py --steps 400``. Both models read what is true of a scene as text, in place of a picture,
and learn to describe it. Raw captions are true ones damaged by ``data/noise.py``; rewritten ones went through
``data/rewrite.py`` with its check of facts, by rules or by ``--model``. The score is the loss on true captions that
nobody trained on, and the share of their facts that a greedy description tells. Loss of training itself is not
compared: noise is harder to predict, so it says nothing.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from handlens.config import LanguageConfig
from handlens.core.tokenizer import Tokenizer
from handlens.data.facts import compare, facts_in
from handlens.data.generate import generate
from handlens.data.noise import make_noisy
from handlens.data.render import open_target
from handlens.data.rewrite import Cache, check_pair, open_rewriter, parse
from handlens.model import packing
from handlens.model.language import build_language

Pair = tuple[str, str]
STOP = "<|im_end|>"


def scenes(count: int, seed: int) -> list[Pair]:
    """Things of a scene, in a fixed order, and the true caption."""
    pairs = []
    for index in range(count * 3):
        record = generate("scenes", seed, index, level=0.0)
        told = [turn.answer for turn in record.turns if turn.task.endswith(".describe")]
        if told:
            width, height = record.picture.size
            told_things = []
            for thing in sorted(record.things, key=lambda thing: thing.box):
                x, y = (thing.box[0] + thing.box[2]) / 2 / width, (thing.box[1] + thing.box[3]) / 2 / height
                told_things.append(f"{thing.size} {thing.colour} {thing.shape} {round(9 * x)} {round(9 * y)}")
            pairs.append(("; ".join(told_things), told[0]))
        if len(pairs) == count:
            break
    return pairs


def rewritten(raw: list[Pair], name: str) -> tuple[list[Pair], int]:
    """Captions after the rewriter; how many were refused and stay raw."""
    rewriter = open_rewriter(name)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "cache")
        replies = rewriter.write([caption for _, caption in raw])
        cache.put(rewriter.name, [caption for _, caption in raw], replies)
    result, refused = [], 0
    for (things, caption), reply in zip(raw, replies, strict=True):
        pair = parse(reply)
        good = pair is not None and check_pair(pair, caption, {}).is_none
        refused += not good
        result.append((things, pair.answer if good and pair else caption))
    return result, refused


def encode(pair: Pair, tokenizer: Tokenizer) -> tuple[list[int], int]:
    prompt = tokenizer.encode(f"<|im_start|>user\n{pair[0]}<|im_end|>\n<|im_start|>assistant\n").tolist()
    return prompt + tokenizer.encode(pair[1] + STOP).tolist(), len(prompt)


def loss_of(model, rows: list[tuple[list[int], int]]) -> torch.Tensor:
    """Mean loss a token of the answers, one packed row."""
    lengths = tuple(len(ids) for ids, _ in rows)
    ids = torch.tensor([token for row, _ in rows for token in row])[None]
    places = torch.cat([torch.arange(length) for length in lengths])
    learned = torch.cat([torch.arange(len(row)) >= begin for row, begin in rows])[1:]
    hidden = model.model(ids, position_ids=places[None], use_cache=False, segment_lengths=lengths).last_hidden_state[0]
    return F.cross_entropy(model.lm_head(hidden[:-1][learned]), ids[0, 1:][learned])


def train(pairs: list[Pair], tokenizer: Tokenizer, steps: int, seed: int):
    torch.manual_seed(seed)
    model = build_language(
        LanguageConfig(
            vocab_size=tokenizer.vocab_size, width=128, mlp_width=256, num_layers=3, num_heads=2, num_kv_heads=1
        )
    )
    model.set_attn_implementation(packing.NAME)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = random.Random(seed)
    rows = [encode(pair, tokenizer) for pair in pairs]
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min((step + 1) / 20, 1.0, (steps - step) / (0.3 * steps))
        loss = loss_of(model, rng.sample(rows, 16))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


@torch.no_grad()
def describe(model, things: str, tokenizer: Tokenizer) -> str:
    ids = tokenizer.encode(f"<|im_start|>user\n{things}<|im_end|>\n<|im_start|>assistant\n").tolist()
    begin, stop = len(ids), tokenizer.id_of(STOP)
    while len(ids) - begin < 200:
        out = model(
            torch.tensor([ids]), position_ids=torch.arange(len(ids))[None], use_cache=False, segment_lengths=(len(ids),)
        )
        ids.append(int(out.logits[0, -1].argmax()))
        if ids[-1] == stop:
            break
    return tokenizer.decode(ids[begin:])


@torch.no_grad()
def score(model, held: list[Pair], tokenizer: Tokenizer) -> dict[str, float]:
    loss = float(torch.stack([loss_of(model, [encode(pair, tokenizer)]) for pair in held]).mean())
    told = wanted = exact = 0
    for things, caption in held[:20]:
        said = describe(model, things, tokenizer)
        wanted += len(facts_in(caption))
        told += len(facts_in(caption)) - len(compare(said, caption).lost)
        exact += said == caption
    return {"loss": round(loss, 4), "facts": round(told / wanted, 4), "exact": exact / 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--count", type=int, default=1500, help="captions of training")
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--model", default="rules", help="who rewrites")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = open_target().tokenizer
    true, held = scenes(args.count, 1), scenes(60, 999)
    rng = random.Random(3)
    raw = [(things, make_noisy(caption, rng, level=args.noise)) for things, caption in true]
    good, refused = rewritten(raw, args.model)
    print(
        json.dumps(
            {"captions": len(raw), "damaged": sum(a != b for a, b in zip(raw, true, strict=True)), "refused": refused}
        )
    )
    for seed in range(args.seeds):
        for name, pairs in (("raw", raw), ("rewritten", good), ("true", true)):
            scores = score(train(pairs, tokenizer, args.steps, seed), held, tokenizer)
            print(json.dumps({"seed": seed, "trained on": name} | scores), flush=True)


if __name__ == "__main__":
    main()
