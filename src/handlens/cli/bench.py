"""``handlens bench``: how fast a model runs here, beside stock llama.cpp where that is asked for."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", default="nano")
@click.option("--against", type=click.Choice(["llama.cpp"]), help="Measure this in turns with ours.")
@click.option("--mmproj", type=click.Path(dir_okay=False, path_type=Path), help="Vision GGUF for llama.cpp.")
@click.option("--image", "images", multiple=True, metavar="WxH", help="Size; repeat it.  [default: 448x448, 1344x1344]")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of each engine.")
@click.option("--threads", type=click.IntRange(min=1), help="For both engines.  [default: the free cores]")
@click.option("--max-tokens", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens that are said.")
@click.option("--prefill", type=click.Choice(["llama.cpp", "openvino"]), help="What reads the pictures of a prompt.")
@click.option("--no-profile", is_flag=True, help="Ignore what `handlens tune` found.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def bench(
    model: str,
    against: str | None,
    mmproj: Path | None,
    images: tuple[str, ...],
    rounds: int,
    threads: int | None,
    max_tokens: int,
    prefill: str | None,
    no_profile: bool,
    as_json: bool,
) -> None:
    """Measure how fast a model runs here.

    \b
    handlens bench nano
    handlens bench nano --against llama.cpp --json

    Each run is a process of its own and the engines take turns, so a busy machine is busy for both. What is compared
    is the median of each.
    """  # noqa: D301
    import contextlib
    import dataclasses

    from handlens.engine.cores import count_free_cores
    from handlens.engine.setup import Setup, load_profile
    from handlens.errors import SettingError
    from handlens.measure import bench as benches
    from handlens.measure.devices import this_device
    from handlens.measure.geometry import geometry_for
    from handlens.measure.trial import parse_size

    sizes = tuple(parse_size(text) for text in images) or benches.SIZES
    geometry = geometry_for(model)
    if geometry.folder is None:
        raise SettingError(f"bench measures, so it needs weights; '{model}' is only a name; give a bundle")
    setup = (None if no_profile else load_profile(geometry.folder)) or Setup()
    setup = dataclasses.replace(setup, prefill=prefill or setup.prefill)
    vision = benches.mmproj_of(geometry.folder, mmproj) if against else contextlib.nullcontext()
    with vision as file:
        report = benches.bench(
            geometry, this_device(), mmproj=file, threads=threads or count_free_cores(), rounds=rounds, sizes=sizes,
            max_tokens=max_tokens, setup=setup, say=lambda line: click.echo(line, err=True),
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        show(report)


ROWS = {
    "vision_seconds_per_slice": ("vision, s per slice", "{:.3f}"),
    "prefill_seconds": ("prompt, s", "{:.2f}"),
    "first_word_seconds": ("first word, s", "{:.2f}"),
    "tokens_per_second": ("tokens/s", "{:.1f}"),
    "peak_bytes": ("peak memory, MB", "{:.0f}"),
    "second_question_seconds": ("second question, new process, s", "{:.2f}"),
    "second_question_held_seconds": ("second question, held, s", "{:.3f}"),
}


def show(report: dict[str, Any]) -> None:
    """Print a table per picture size."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for picture in report["pictures"]:
        figures, ratios = picture["figures"], picture.get("ratios", {})
        width, height = picture["size"]
        slices = ", ".join(f"{name} {figures[name]['num_slices']}" for name in figures)
        title = f"{report['model']}, {width}x{height} px, {report['threads']} threads (slices: {slices})"
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        table.add_column("median")
        for name in [*figures, *(["ratio"] if ratios else [])]:
            table.add_column(name, justify="right")
        for key, (label, form) in ROWS.items():
            scale = 1e6 if key == "peak_bytes" else 1.0
            cells = [form.format(found[key]["median"] / scale) for found in figures.values()]
            ratio = ratios.get("memory" if key == "peak_bytes" else key)
            table.add_row(label, *cells, *([f"{ratio:.2f}"] if ratio is not None else []))
        console.print(table)
        spent = picture.get("processor_ratios")
        if spent and report["threads"] == 1:
            console.print(
                f"by processor time, which a busy machine changes less: vision {spent['encode']:.2f}, prompt "
                f"{spent['prefill']:.2f}, first word {spent['first_word']:.2f}, decoding {spent['decode']:.2f} times "
                "faster"
            )
        shares = picture["shares"]
        console.print(
            f"of this machine's limits: vision {shares['vision']['share']:.0%} and prompt "
            f"{shares['prefill']['share']:.0%} of its arithmetic, decoding {shares['decode']['share']:.0%} of its "
            "bandwidth"
        )
    if any("ratios" in picture for picture in report["pictures"]):
        console.print("ratio: times faster than llama.cpp; for memory, our share of what it takes")
