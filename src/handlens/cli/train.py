"""``handlens train``: run a recipe, or go on with it; list recipes and price them."""

import json
from pathlib import Path
from typing import Any, Literal

import click

from handlens.cli.training import duration, model_folder, news, pause_code, short


class TrainCommand(click.Command):
    """``train finetune`` has options of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to fine-tuning when it is asked for."""
        if args[:1] == ["finetune"]:
            from handlens.cli.finetune import finetune

            return finetune.make_context("train finetune", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=TrainCommand)
@click.argument("recipe", required=False)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--list", "as_list", is_flag=True, help="List the recipes.")
@click.option("--dry-run", is_flag=True, help="Show phases and what they cost; train nothing.")
@click.option("--set", "pairs", metavar="NAME=VALUE", multiple=True, help="Change a setting; repeatable.")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Shards to use in place of generated pictures."
)
@click.option("--from", "base", help="Model folder (or nano) whose weights the first phase begins with.")
@click.option("--machine", default="", help="Machine that a dry run is told for.  [default: this one]")
@click.option("--parallel", type=click.Choice(["fsdp", "ddp"]), default="fsdp", help="How torchrun's processes share.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0.0),
    default=30.0,
    show_default=True,
    help="Seconds from SIGTERM to the kill; a step that would take longer is given up.",
)
@click.option("--json", "as_json", is_flag=True, help="Print objects; while training, every report on its line.")
def train(
    recipe: str | None,
    out: Path | None,
    as_list: bool,
    dry_run: bool,
    pairs: tuple[str, ...],
    data: Path | None,
    base: str | None,
    machine: str,
    parallel: Literal["fsdp", "ddp"],
    grace: float,
    as_json: bool,
) -> int | None:
    """Train a model by a recipe.

    \b
    handlens train nano:all --out runs/nano
    handlens train nano:sft --out runs/nano --set sft.steps=200
    handlens train --list
    handlens train minicpm-v-2.0 --dry-run
    handlens train finetune --model nano --data my.json --out runs/mine

    Stop it at any moment: the same command goes on from the last checkpoint. Ctrl-C ends with exit code 130,
    SIGTERM with 143. Several processes: torchrun --nproc-per-node 2 -m handlens.cli.main train ...
    Needs the extra 'train'.
    """  # noqa: D301
    settings = dict(split_pair(pair) for pair in pairs)
    if machine and not dry_run:
        raise click.UsageError("--machine is for --dry-run; add --dry-run or leave --machine out")
    if recipe is None and not as_list:
        raise click.UsageError("missing argument 'RECIPE'; name one, or --list them")
    if out is None and not (as_list or dry_run):
        raise click.UsageError("missing option '--out'; name the folder of the run")
    try:
        from handlens.train.run import Paused
        from handlens.train.run import train as run_recipe
    except ModuleNotFoundError as cause:
        from handlens.errors import NeedsExtra

        raise NeedsExtra(f"training ({cause.name} is missing)", "train") from None
    if as_list:
        show_list(as_json)
        return None
    assert recipe is not None
    if dry_run:
        show_plan(recipe, settings, machine, data, model_folder(base), parallel, as_json)
        return None
    assert out is not None
    from handlens.cli.progress import progress_bar

    with progress_bar(recipe, "steps") as advance:

        def report(row: dict[str, Any]) -> None:
            if as_json:
                click.echo(json.dumps(row))
            advance(row.get("step", 0), row.get("of", 1), news(row), name=row.get("phase", recipe))

        try:
            folder = run_recipe(
                recipe, out, settings, report, data=data, base=model_folder(base), mode=parallel, grace_seconds=grace
            )  # fmt: skip
        except Paused as paused:
            return pause_code(paused)
    click.echo(json.dumps({"folder": str(folder)}) if as_json else folder)
    return None


def show_list(as_json: bool) -> None:
    """Print the recipes and their phases."""
    from handlens.train.choose import RECIPES

    rows = []
    for name, module in RECIPES.items():
        made = module.recipe()
        rows.append(
            {
                "name": name,
                "about": made.about,
                "phases": [phase.name for phase in made.phases],
                "needs": list(made.needs),
            }
        )
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['name']}\n    {row['about']}\n    phases: {', '.join(row['phases'])}")
        if row["needs"]:
            click.echo(f"    needs {'; '.join(row['needs'])}")


def show_plan(
    recipe: str,
    settings: dict[str, str],
    machine: str,
    data: Path | None,
    base: Path | None,
    parallel: Literal["fsdp", "ddp"],
    as_json: bool,
) -> None:
    """Print what every phase does and costs."""
    from handlens.train.plan import plan_named
    from handlens.train.source import Shards, draw_generated

    draw = draw_generated if data is None else Shards(data)
    plan = plan_named(recipe, settings, machine, draw, base=base, mode=parallel)
    if as_json:
        click.echo(json.dumps(plan))
        return
    click.echo(plan_text(plan))


def plan_text(plan: dict[str, Any]) -> str:
    """Return a dry run as a table with notes; ``*`` marks what was never published."""
    lines = [f"{plan['recipe']}: {plan['weights']['all'] / 1e6:,.1f} million weights; {plan['machine']['method']}"]
    head = (
        "phase", "trains", "frozen", "px", "slices", "samples", "slices in all", "tokens", "steps", "rate", "memory",
        "time",
    )  # fmt: skip
    table = [head]
    for cost in plan["phases"]:
        star = dict.fromkeys(cost["substitutes"], "*")
        table.append(
            (
                cost["phase"], " ".join(cost["trains"]) or "-", " ".join(cost["frozen"]) or "-",
                ",".join(map(str, cost["resolution_px"])), "yes" if cost["slicing"] else "no",
                short(cost["samples"]) + star.get("samples", ""), short(cost["slices"]), short(cost["tokens"]),
                str(cost["steps"]) + star.get("slices_per_step", ""), f"{cost['rate']:.0e}" + star.get("rate", ""),
                f"{cost['memory_bytes'] / 1e9:.2f} GB", duration(cost["hours"]),
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    total = plan["total"]
    lines.append(
        f"all: {short(total['samples'])} samples, {short(total['slices'])} slices, {short(total['tokens'])} tokens, "
        f"{total['flops']:.3g} operations, {duration(total['hours'])} on {plan['machine']['name']}"
    )
    for cost in plan["phases"]:
        shares = ", ".join(f"{name} {share:g}" for name, share in cost["data"].items())
        spoken = f"; {len(cost['languages'])} languages" if len(cost["languages"]) > 1 else ""
        lines.append(f"  {cost['phase']}: {cost['schedule']}; data: {shares}{spoken}")
    notes = {f"{name}: {note}" for cost in plan["phases"] for name, note in cost["substitutes"].items()}
    lines += [f"  * {note}" for note in sorted(notes)]
    lines += [f"  needs {need}" for need in plan["needs"]]
    return "\n".join(lines)


def split_pair(pair: str) -> tuple[str, str]:
    """Return name and value of ``name=value``.

    Raises:
        click.UsageError: there is no name or no value.
    """
    name, sign, value = pair.partition("=")
    if not (name.strip() and sign and value.strip()):
        raise click.UsageError(f"--set '{pair}' has no name or no value; write it as sft.steps=200")
    return name.strip(), value.strip()
