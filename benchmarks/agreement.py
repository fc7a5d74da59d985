"""Compare every export of a model with its torch weights, token by token, on held-out pictures.

python benchmarks/agreement.py src/handlens/nano --count 12
"""

import argparse
import json
import tempfile
from pathlib import Path

from handlens.core.images import Picture
from handlens.data.generate import generate
from handlens.engine.answerer import open_bundle
from handlens.eval.heldout import KINDS
from handlens.export.bundle import export_bundle
from handlens.export.verify import compare
from handlens.model.halves import open_torch

QUESTIONS = {
    "lines": "What does it say?",
    "scenes": "What does the picture show?",
    "receipts": "What is the total?",
    "labels": "Transcribe the label.",
    "tables": "Convert the table to markdown.",
}
VARIANTS = (("F32", "fp32"), ("Q8_0", "fp32"), ("Q4_K_M", "fp32"), ("Q8_0", "int8"))


def main() -> None:
    """Print one JSON line per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=12, help="pictures per kind")
    arguments = parser.parse_args()
    reference = open_torch(arguments.model)
    for quant, vision in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            bundle = export_bundle(arguments.model, Path(folder) / "bundle", quant=quant, vision=vision)
            size = sum(file.stat().st_size for file in bundle.iterdir())
            candidate = open_bundle(bundle, keep=True)
            tokens = equal = answers = same = 0
            gap = 0.0
            for kind in KINDS:
                records = [generate(kind, 2, index, split="heldout", level=0.5) for index in range(arguments.count)]
                pictures = [Picture(record.picture, record.key) for record in records]
                found = compare(reference, candidate, pictures, question=QUESTIONS[kind], max_tokens=100)
                tokens, equal = tokens + found.num_tokens, equal + found.num_equal
                answers, same = answers + len(pictures), same + len(pictures) - len(found.differences)
                gap = max(gap, found.visual_gap)
            candidate.close()
        row = {"language": quant, "vision": vision, "answers": answers, "same_answers": same, "tokens": tokens,
               "equal_tokens": equal, "visual_gap": round(gap, 6), "megabytes": round(size / 1e6, 2)}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
