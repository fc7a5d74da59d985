"""``handlens plan``: peak memory and time of every phase, before anything is loaded."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from handlens.measure.devices import Device
    from handlens.measure.geometry import Geometry
    from handlens.measure.plan import Plan


@click.command()
@click.argument("model", default="nano")
@click.option("--image", default="1344x1344", show_default=True, metavar="WxH|FILE", help="Size of a picture, or one.")
@click.option("--device", default="this", show_default=True, help="A name (m1, raspberry-pi-5 ...) or a JSON file.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of a picture.  [default: the model's]")
@click.option("--answer", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens of the answer.")
@click.option("--quant", default="", help="Language weights of a model that is only named.  [default: Q4_K_M]")
@click.option("--vision", default="", help="Vision weights of a model that is only named.  [default: int8]")
@click.option("--keep", is_flag=True, help="Both halves in memory at once.")
@click.option("--run", "runs", is_flag=True, help="Then run it, and print predicted against measured.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def plan(
    model: str,
    image: str,
    device: str,
    max_slices: int | None,
    answer: int,
    quant: str,
    vision: str,
    keep: bool,
    runs: bool,
    as_json: bool,
) -> None:
    """Say what an answer needs before anything is loaded.

    \b
    handlens plan nano --image 4032x3024
    handlens plan minicpm-llama3-v-2.5 --image 1344x1344 --device snapdragon-8-gen-3
    handlens plan nano --image examples/receipt.png --run

    MODEL is nano, the folder of a bundle, or the name of a released version, whose weights need not be there.
    """  # noqa: D301
    from handlens.engine.setup import processor_name
    from handlens.errors import SettingError
    from handlens.measure import history
    from handlens.measure.devices import device_named
    from handlens.measure.geometry import geometry_for
    from handlens.measure.plan import make_plan

    geometry, target = geometry_for(model, quant=quant, vision=vision), device_named(device)
    if runs and (geometry.folder is None or not target.is_measured):
        raise SettingError("--run needs a bundle with weights and this machine; leave it out to predict only")
    known = history.recall(processor_name()) if target.is_measured else []
    factors = history.corrections(known, geometry.name)
    setup = _setup(geometry)
    made = make_plan(
        geometry, target, _size(image), setup=setup, max_slices=max_slices, answer_tokens=answer, keep=keep,
        corrections=factors,
    )  # fmt: skip
    report: dict[str, Any] = made.to_json() | {"settings": setup.to_json(changed_only=True)}
    if target.is_measured:
        report["own_error"] = history.own_error(known)
    if not as_json:
        show(made, geometry, target, report)
    if runs:
        report["measured"] = _run(made, geometry, image, answer, max_slices, factors)
        if not as_json:
            show_measured(report["measured"])
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))


def show(made: "Plan", geometry: "Geometry", device: "Device", report: dict[str, Any]) -> None:
    """Print what it is for, then the plan as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from handlens.engine.memory import human

    title = (
        f"{geometry.name} ({geometry.vision_kind} vision {human(geometry.vision_bytes)}, {geometry.language_kind} "
        f"language {human(geometry.language_bytes)}) on {device.name}: {_slices(made.num_slices)}, "
        f"{made.prompt_tokens} prompt tokens"
    )
    click.echo(title)
    if report["settings"]:
        told = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
        click.echo(f"settings of `handlens tune`: {told}")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("phase", "peak memory", "seconds"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for phase in made.phases:
        name = f"encode {_slices(made.num_slices)}" if phase.name == "encode" else phase.name
        name = f"decode {made.answer_tokens} tokens" if phase.name == "decode" else name
        table.add_row(name, human(phase.peak_bytes), f"{phase.seconds:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"peak {human(made.peak_bytes)}; first word after {made.first_word_seconds:.1f} s; "
        f"{made.tokens_per_second:.1f} tokens/s"
    )
    error = report.get("own_error", {})
    if error.get("runs"):
        console.print(
            f"peaks predicted on this machine were {error['median_peak_error']:.0%} off (median of {error['runs']} "
            f"runs, worst {error['worst']:.0%})"
        )
    for warning in made.warnings:
        click.echo(f"handlens plan: {warning}", err=True)


def show_measured(comparison: dict[str, Any]) -> None:
    """Print predicted against measured."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from handlens.engine.memory import human

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("phase", "predicted", "measured", "error", "predicted s", "measured s", "error"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for row in comparison["phases"]:
        predicted, measured = row["predicted"], row["measured"]
        table.add_row(
            row["name"], human(predicted["peak_bytes"]), human(measured["peak_bytes"]), f"{row['peak_error']:+.0%}",
            f"{predicted['seconds']:.2f}", f"{measured['seconds']:.2f}", f"{row['seconds_error']:+.0%}",
        )  # fmt: skip
    Console().print(table)


def _slices(count: int) -> str:
    return f"{count} slice" if count == 1 else f"{count} slices"


def _size(image: str) -> tuple[int, int]:
    """Return the size of a picture file, or the size that is written."""
    from handlens.core.pages import open_any
    from handlens.measure.trial import parse_size

    return open_any(image).image.size if Path(image.partition("#")[0]).is_file() else parse_size(image)


def _setup(geometry: "Geometry") -> Any:
    """Return the settings that a run would have."""
    from handlens.engine.setup import Setup, load_profile

    return (load_profile(geometry.folder) if geometry.folder else None) or Setup()


def _run(
    made: "Plan", geometry: "Geometry", image: str, answer: int, max_slices: int | None, factors: dict[str, float]
) -> dict[str, Any]:
    """Run it in a child process; remember and return predicted against measured."""
    from handlens.engine.setup import processor_name
    from handlens.measure import history
    from handlens.measure.trial import Job, require, run_trial

    assert geometry.folder is not None
    source = image if Path(image).is_file() else _size(image)
    job = Job(
        bundle=geometry.folder, setup=_setup(geometry), images=(source,), max_tokens=answer,
        max_slices=max_slices or 0, limit_seconds=3600,
    )  # fmt: skip
    trial = run_trial(job)
    require(trial)
    comparison = history.compare(made, trial, factors)
    history.remember(made, comparison, processor_name())
    return comparison
