"""What a little of other languages is worth: the same model and steps, more and more records that are not English.

    python benchmarks/multilingual.py --from FOLDER --steps 250 --shares 0 0.005 0.05 0.2

The paper adds less than 0.5 % of multilingual records at the end of SFT (section 4.4; Table 8 is per language). Here
every arm goes on from the same model folder with the mixture of phase ``multilingual``; its share of other languages is
spread evenly over all of them. The score is how many answers of held-out records are right word for word, greedily,
asked in that language: those of English, of tier A, of tier B, and of each language of tier A.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import DataError
from handlens.eval.stats import wilson
from handlens.model import packing
from handlens.model.checkpoint import load_config, load_model
from handlens.model.vlm import HandlensModel
from handlens.recipes import nano
from handlens.train.feed import batches
from handlens.train.learner import arithmetic, token_loss
from handlens.train.loop import train_phase
from handlens.train.phases import Phase

ASKED = {"scenes": 0.6, "labels": 0.2, "receipts": 0.2}
OTHERS = (*nano.TIER_A, *nano.TIER_B)


def phase_with(share: float, steps: int, rate: float) -> Phase:
    """Return the phase of one arm: that share of its records is not English."""
    spoken = {"en": 1.0 - share} | (dict.fromkeys(OTHERS, share / len(OTHERS)) if share else {})
    phase = nano.recipe().only("multilingual").phases[0]
    return replace(phase, languages=spoken, cells_weight=0.0, head_of="", steps=steps, rate=rate, decay_share=0.8)


@torch.no_grad()
def ask(model: HandlensModel, config: HandlensConfig, tokenizer: Tokenizer, code: str, count: int) -> Counter[str]:
    """Return how many answers about ``count`` held-out records of a language are right, and how many were asked for."""
    phase = replace(phase_with(0.0, 1, 1e-3), languages={code: 1.0}, mixture=ASKED, zoomed_share=0.0)
    found: Counter[str] = Counter()
    stream = batches(phase, config, tokenizer, seed=7, split="heldout")
    for batch in itertools.islice(stream, max(count // phase.pictures_per_step, 1)):
        with arithmetic():
            _, scores = token_loss(model, batch)
        for name, value in scores.items():
            kind = name.split("/")[0]
            if kind in ("exact", "count"):
                found[kind] += int(value)
    return found


def share_of(found: Counter[str]) -> str:
    """Say a share with its 95 % interval."""
    low, high = wilson(found["exact"], found["count"])
    return f"{100 * found['exact'] / found['count']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {found['count']}"


def main() -> None:
    """Print one JSON line for the model before, and one per arm and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="base", type=Path, required=True, help="model folder that every arm begins with")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.005, 0.05, 0.2])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--count", type=int, default=48, help="held-out records per language")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(arguments.base)
    tokenizer = Tokenizer.from_file(arguments.base / "tokenizer.json")

    def tell(model: HandlensModel, said: dict[str, object], began: float) -> None:
        model.eval()
        model.llm.set_attn_implementation(packing.NAME)
        found, undrawn = {}, []
        for code in ("en", *OTHERS):
            try:
                found[code] = ask(model, config, tokenizer, code, arguments.count)
            except DataError:  # its held-out font is not on this machine
                undrawn.append(code)
        tiers = {"en": ("en",), "tier A": nano.TIER_A, "tier B": nano.TIER_B}
        for name, codes in tiers.items():
            said[name] = share_of(sum((found[code] for code in codes if code in found), Counter()))
        said |= {code: share_of(found[code]) for code in nano.TIER_A if code in found} | {"not drawn": undrawn}
        print(json.dumps(said | {"seconds": round(time.process_time() - began)}), flush=True)

    tell(load_model(arguments.base), {"share": "before"}, time.process_time())
    for seed in range(1, arguments.seeds + 1):
        for share in arguments.shares:
            began, model = time.process_time(), load_model(arguments.base)
            with tempfile.TemporaryDirectory() as folder:
                train_phase(
                    model, config, phase_with(share, arguments.steps, arguments.rate), tokenizer, Path(folder),
                    seed=seed, report=lambda row: None, seconds_between_checkpoints=1e9,
                )  # fmt: skip
            tell(model, {"share": share, "seed": seed}, began)


if __name__ == "__main__":
    main()
