"""``handlens data price``: what training on a data set costs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlens.data.price import Price


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--recipe", default="nano:sft", show_default=True, help="RECIPE:PHASE.")
@click.option("--machine", default="epyc2", show_default=True, help="On which machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def price(folder: Path, recipe: str, machine: str, as_json: bool) -> None:
    """Tell what training on a data set costs.

    \b
    handlens data price shards/receipts --recipe minicpm-v-2.5:sft --machine a100

    Tokens, slices, memory and hours of one epoch, computed and not run.
    """  # noqa: D301
    from handlens.data.check import check
    from handlens.data.formats import read_samples
    from handlens.data.price import RECIPES
    from handlens.data.price import price as cost_of
    from handlens.data.render import open_target

    name = recipe.partition(":")[0]
    target = open_target("nano", RECIPES[name]().family if name in RECIPES else None)
    cost = cost_of(check(read_samples(folder), target), recipe, machine)
    if as_json:
        click.echo(json.dumps(cost.to_json()))
    else:
        tell(cost)


def tell(cost: "Price") -> None:
    """Print a price for people."""
    room = "fits" if cost.fits else "does not fit"
    click.echo(
        f"{cost.recipe} on {cost.machine}, one epoch: {cost.tokens:,} tokens ({cost.target_tokens:,} learned), "
        f"{cost.slices:,} slices, {cost.memory_bytes / 1e9:.3g} GB ({room}), {cost.hours:.3g} h"
    )
