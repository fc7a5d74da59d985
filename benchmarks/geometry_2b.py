"""Write a model of random weights at 2B geometry that stock llama.cpp can see with, for ``handlens bench``.

    python benchmarks/geometry_2b.py --to 2b && handlens bench 2b --against llama.cpp --threads 1

llama.cpp has no vision part for MiniCPM-V 2.0. This takes the sizes of its halves, 26 layers of SigLIP-400M and 40
layers of width 2304, in the form of 4.0: a plain Llama behind a resampler of 64 queries.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from handlens.config import HandlensConfig
from handlens.models.make import make_random
from handlens.models.released import released_config


def config() -> HandlensConfig:
    """Return the sizes of 2.0 in the form of 4.0."""
    sizes, form = released_config("2.0"), released_config("4.0")
    language = replace(sizes.language, kind="llama", scale_emb=1.0, scale_depth=None, dim_model_base=None)
    return replace(
        form,
        language=language,
        resampler=replace(form.resampler, width=language.width),
        vision=replace(form.vision, num_layers=sizes.vision.num_layers),
    )


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("2b"))
    parser.add_argument("--quant", default="Q4_K_M")
    arguments = parser.parse_args()
    print(make_random(config(), arguments.to, quant=arguments.quant, mmproj=True, name="2b-random"))


if __name__ == "__main__":
    main()
