"""``handlens train finetune``: teach a model something new from one's own pictures."""

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

PARTS = ("vision", "resampler", "language")


@click.command()
@click.option("--model", required=True, help="Model folder to begin with, or nano.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="JSON of MiniCPM-V or LLaVA, or a folder of samples."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option("--lora", is_flag=True, help="Train small additions (peft) instead of the weights themselves.")
@click.option("--rank", default=16, show_default=True, help="Rank of the additions.")
@click.option("--dropout", default=0.0, show_default=True, help="Dropout of the additions.")
@click.option("--targets", metavar="REGEX", help="Linear layers that get additions, by their whole names.")
@click.option(
    "--save-module", "saved", multiple=True, help="Module that learns whole beside LoRA.  [default: resampler]"
)
@click.option(
    "--trains", multiple=True, type=click.Choice(PARTS), help="Parts that learn without --lora.  [default: all]"
)
@click.option("--int4", is_flag=True, help="Round the language model to 4 bits while it learns (torchao).")
@click.option("--epochs", default=3.0, show_default=True, help="Times round the data.")
@click.option("--steps", default=0, help="Steps; overrules --epochs.")
@click.option("--rate", default=0.0, help="Learning rate.  [default: 1e-4, with --lora 1e-3]")
@click.option("--pictures-per-step", default=8, show_default=True, help="Samples of one step.")
@click.option("--held-out", default=0.1, show_default=True, help="Share of samples that is only looked at.")
@click.option("--patience", default=3, show_default=True, help="Looks without a new best before stopping; 0: never.")
@click.option("--seed", default=1, show_default=True, help="Of order and split.")
@click.option("--dry-run", is_flag=True, help="Show memory and time; train nothing.")
@click.option("--machine", default="", help="Machine that a dry run is told for.  [default: this one]")
@click.option("--to", "bundle", type=click.Path(path_type=Path), help="Export the merged model to this bundle too.")
@click.option("--quant", default="Q8_0", show_default=True, help="Language weights of the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print one object at the end.")
@click.pass_context
def finetune(
    context: click.Context,
    model: str,
    data: Path,
    out: Path,
    lora: bool,
    rank: int,
    dropout: float,
    targets: str | None,
    saved: tuple[str, ...],
    trains: tuple[str, ...],
    int4: bool,
    epochs: float,
    steps: int,
    rate: float,
    pictures_per_step: int,
    held_out: float,
    patience: int,
    seed: int,
    dry_run: bool,
    machine: str,
    bundle: Path | None,
    quant: str,
    as_json: bool,
) -> int | None:
    """Teach a model something new from your own pictures.

    \b
    handlens train finetune --model nano --data my.json --out runs/mine --dry-run
    handlens train finetune --model nano --data my.json --out runs/mine --to mine.bundle

    Stop it at any moment: the same command goes on. It ends early when held-out samples get no better, keeps
    the best weights, merges what --lora added, and with --to exports. Needs the extra 'train'.
    """  # noqa: D301
    from handlens.cli.training import model_folder, pause_code

    refuse_unused(context, lora=lora, dry_run=dry_run, bundle=bundle)
    try:
        from handlens.train.finetune import FineTune, Tuning
        from handlens.train.lora import TARGETS, Lora
        from handlens.train.run import Paused
    except ModuleNotFoundError as cause:
        from handlens.errors import NeedsExtra

        raise NeedsExtra(f"training ({cause.name} is missing)", "train") from None
    added = None
    if lora:
        modules = tuple(name for name in saved if name) if saved else ("resampler",)
        added = Lora(targets=targets or TARGETS, saved=modules, rank=rank, alpha=2 * rank, dropout=dropout)
    folder = model_folder(model)
    assert folder is not None
    parts: Any = trains or PARTS
    tuning = Tuning(
        FineTune(
            model=folder, data=data, out=out, lora=added, trains=parts, int4=int4, epochs=epochs, steps=steps,
            rate=rate, pictures_per_step=pictures_per_step, held_out=held_out, patience=patience, seed=seed,
        )
    )  # fmt: skip
    if bundle is not None:
        from handlens.export.bundle import refuse_to_overwrite
        from handlens.export.mixes import check_quant

        check_quant(quant)
        refuse_to_overwrite(bundle)
    if dry_run:
        show_cost(tuning, machine, as_json)
        return None
    from handlens.cli.progress import progress_bar
    from handlens.cli.training import news

    with progress_bar("finetune", "steps") as advance:

        def report(row: dict[str, Any]) -> None:
            advance(row.get("step", 0), row.get("of", 1), news(row), name=row.get("phase", "finetune"))

        try:
            result = tuning.run(report)
        except Paused as paused:
            return pause_code(paused)
    if bundle is not None:
        from handlens.export.bundle import export_bundle

        result["bundle"] = str(export_bundle(Path(result["folder"]), bundle, quant=quant))
    show_result(result, as_json)
    return None


def refuse_unused(context: click.Context, *, lora: bool, dry_run: bool, bundle: Path | None) -> None:
    """Refuse options that would change nothing.

    Raises:
        click.UsageError: one was given.
    """
    needs = {
        "--lora": (("rank", "dropout", "targets", "saved"), lora),
        "--dry-run": (("machine",), dry_run),
        "--to": (("quant",), bundle is not None),
    }
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = {name for name in options if name and context.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    for option, (names, is_there) in needs.items():
        for name in names:
            if name in given and not is_there:
                raise click.UsageError(f"{options[name]} changes nothing without {option}; add it, or leave it out")
    if lora and "trains" in given:
        raise click.UsageError("--trains names what learns without --lora; name layers with --targets, or drop --lora")


def show_cost(tuning: Any, machine: str, as_json: bool) -> None:
    """Print what a fine-tuning will cost."""
    from dataclasses import asdict

    from handlens.cli.training import duration, short
    from handlens.engine.memory import resident_bytes
    from handlens.train.plan import machine_named

    cost = tuning.cost(machine_named(machine))
    program = resident_bytes()
    if as_json:
        counts = {"learned": len(tuning.talks), "held_out": len(tuning.kept), "program_bytes": program}
        click.echo(json.dumps(asdict(cost) | counts))
        return
    click.echo(
        f"{len(tuning.talks)} samples to learn from, {len(tuning.kept)} held out; {cost.steps} steps at {cost.rate:g}\n"
        f"learns: {learning(tuning)}\n"
        f"{short(cost.slices)} slices, {short(cost.tokens)} tokens, {cost.flops:.3g} operations\n"
        f"memory about {cost.memory_bytes / 1e9:.2f} GB of numbers, and {program / 1e9:.2f} GB for each of two "
        f"processes, as this one has now\ntime about {duration(cost.hours)} ({cost.method})"
    )


def learning(tuning: Any) -> str:
    """Return in words what learns."""
    if not tuning.layers:
        return ", ".join(tuning.trains())
    whole = "".join(f"; {name} whole" for name in tuning.ask.lora.saved)
    return f"additions of rank {tuning.ask.lora.rank} to {len(tuning.layers)} linear layers{whole}"


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """Print what was reached: curves on stderr, the folder on stdout."""
    from handlens.train.curves import points_of, text_curve

    rows = result.pop("rows")
    if as_json:
        click.echo(json.dumps(result))
        return
    for name in ("loss", "held_out"):
        if points := points_of(rows, name):
            click.echo(f"{name.replace('_', ' ')}\n{text_curve(points)}", err=True)
    early = ", stopped early" if result["stopped_early"] else ""
    held_out = "" if result["held_out_loss"] is None else (
        f"; held out {result['held_out_loss']:.4f} at step {result['best_step']}{early}"
    )  # fmt: skip
    done = "trained before, nothing is left to do: " if result["was_done"] else ""
    click.echo(
        f"{done}{result['steps']} steps, loss {result['loss']}{held_out}; curves in {result['curves']}", err=True
    )
    click.echo(result.get("bundle", result["folder"]))
