"""Write a model of random weights at 2B or 8B geometry that stock llama.cpp can see with, for ``handlens bench``.

    python benchmarks/geometry.py 2b && handlens bench 2b --against llama.cpp --threads 1

8b is MiniCPM-Llama3-V 2.5 as it is. llama.cpp has no vision part for MiniCPM-V 2.0, so 2b takes the sizes of its
halves, 26 layers of SigLIP-400M and 40 layers of width 2304, in the form of 4.0: a plain Llama behind a resampler of
64 queries.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from handlens.config import HandlensConfig
from handlens.models.make import make_random
from handlens.models.released import released_config


def config_2b() -> HandlensConfig:
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
    parser.add_argument("size", choices=("2b", "8b"))
    parser.add_argument("--to", type=Path, help="folder to write  [default: the size]")
    parser.add_argument("--quant", default="Q4_K_M")
    given = parser.parse_args()
    config = config_2b() if given.size == "2b" else released_config("2.5")
    to = given.to or Path(given.size)
    print(make_random(config, to, quant=given.quant, mmproj=True, name=f"{given.size}-random"))


if __name__ == "__main__":
    main()
