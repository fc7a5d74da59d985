"""``handlens train``: run a recipe, or go on with it."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("recipe")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option("--set", "pairs", metavar="NAME=VALUE", multiple=True, help="Change a setting; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print every report as an object on a line of its own.")
def train(recipe: str, out: Path, pairs: tuple[str, ...], as_json: bool) -> None:
    """Train a model by a recipe.

    \b
    handlens train nano:all --out runs/nano
    handlens train nano:sft --out runs/nano --set sft.steps=200

    Stop it at any moment: the same command goes on from the last checkpoint. Needs the extra 'train'.
    """  # noqa: D301
    settings = dict(split_pair(pair) for pair in pairs)
    from handlens.cli.progress import progress_bar
    from handlens.errors import NeedsExtra

    try:
        from handlens.train.run import train as run_recipe
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"training ({cause.name} is missing)", "train") from None
    with progress_bar(recipe, "steps") as advance:

        def report(row: dict[str, Any]) -> None:
            if as_json:
                click.echo(json.dumps(row))
            advance(row.get("step", 0), row.get("of", 1), news(row), name=row.get("phase", recipe))

        folder = run_recipe(recipe, out, settings, report)
    click.echo(json.dumps({"folder": str(folder)}) if as_json else folder)


def news(row: dict[str, Any]) -> str:
    """Return the measures of a report in a few words.

    >>> news({"phase": "sft", "step": 20, "of": 100, "loss": 1.23456, "seconds": 7.0})
    'loss 1.235'
    """
    facts = {"phase", "step", "of", "pictures", "slices", "tokens", "seconds", "rate"}
    return ", ".join(
        f"{name} {value:.4g}" for name, value in row.items() if name not in facts and isinstance(value, int | float)
    )


def split_pair(pair: str) -> tuple[str, str]:
    """Return name and value of ``name=value``.

    Raises:
        click.UsageError: there is no name or no value.
    """
    name, sign, value = pair.partition("=")
    if not (name.strip() and sign and value.strip()):
        raise click.UsageError(f"--set '{pair}' has no name or no value; write it as sft.steps=200")
    return name.strip(), value.strip()
