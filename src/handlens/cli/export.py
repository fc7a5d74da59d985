"""``handlens export``: a model in, a bundle for devices or files for llama.cpp out, in as few bits as wanted."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from handlens.export.importance import Importance
    from handlens.export.routes import Wanted

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--to", "out", type=click.Path(path_type=Path), required=True, help="Folder to write, or a .gguf file.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["bundle", "gguf"]),
    help="A bundle, or language and mmproj files for stock llama.cpp.  [default: bundle]",
)
@click.option(
    "--quant",
    default="Q8_0",
    show_default=True,
    help="Language weights: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0.",
)
@click.option("--vision", help="Vision weights of a bundle: fp32, bf16, fp16, int8 or int8-static.  [default: fp32]")
@click.option("--also", multiple=True, help="Put this variant of a half into the bundle too, for `handlens tune`.")
@click.option("--importance", "--imatrix", type=_FILE, help="Importance matrix for the language weights (GGUF).")
@click.option("--measure-importance", type=_FILE, help="Measure one on drawn pictures, use it, and write it here.")
@click.option("--requantise", is_flag=True, help="Also round weights that have few bits already.")
@click.option("--report", is_flag=False, flag_value="", metavar="[FILE]",
              help="Compare with full precision: a page, and the same as JSON beside it.")  # fmt: skip
@click.option("--questions", type=click.IntRange(min=1), default=12, show_default=True,
              help="Questions of each task of the report.")  # fmt: skip
@click.option("--mmproj", is_flag=True, help="Put the vision part of llama.cpp into the bundle too.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Merge this PEFT adapter first.")
@click.option("--name", help="Name of the model.  [default: the folder's]")
@click.option("--weights", is_flag=True, help="Copy the torch weights too, to train on from the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def export(
    model: str,
    out: Path,
    kind: str | None,
    quant: str,
    vision: str | None,
    also: tuple[str, ...],
    importance: Path | None,
    measure_importance: Path | None,
    requantise: bool,
    report: str | None,
    questions: int,
    mmproj: bool,
    adapter: Path | None,
    name: str | None,
    weights: bool,
    as_json: bool,
) -> None:
    """Make a bundle that runs without torch, or files for llama.cpp.

    \b
    handlens export nano --to nano-4bit --quant Q4_K_M --vision int8 --report
    handlens export nano --to nano-all --also Q4_0 --also int8
    handlens export MiniCPM-V-2_6 --to MiniCPM-V-2_6-gguf --format gguf --quant F16
    handlens export language-F16.gguf --to language-Q4_K_M.gguf --quant Q4_K_M

    MODEL is a name or a folder with config.json, model.safetensors and tokenizer.json; or a bundle; or a .gguf file,
    or a folder with two. What is written appears whole or not at all. A bundle of torch weights needs the extra
    'train'; so does whatever draws pictures.
    """  # noqa: D301
    from handlens.cli.progress import progress_bar
    from handlens.errors import SettingError
    from handlens.export import routes
    from handlens.export.importance import read_importance
    from handlens.export.llama_cpp import hazards
    from handlens.models.store import find_model

    if importance and measure_importance:
        raise SettingError("--importance reads a matrix and --measure-importance makes one; give one of them")
    path = Path(model) if Path(model).is_file() else find_model(model)
    with _merged(path, adapter) as source:
        kind = kind or "bundle"
        wanted = routes.Wanted(
            quant=quant, vision=vision, name=name, weights=weights, mmproj=mmproj, again=requantise,
            importance=read_importance(importance) if importance else None,
        )  # fmt: skip
        routes.check_vision(vision)
        if also and kind != "bundle":
            raise SettingError("only a bundle holds several variants; leave out --also or --format")
        routes.check_variants(source, also)
        if measure_importance:
            wanted = _weighted(source, wanted, measure_importance)
        with progress_bar("export", "tensors") as advance:
            written = routes.export_model(source, out, kind, wanted, lambda done, of, note: advance(done, of, note))
        if also:
            routes.add_variants(written, source, also, wanted)
        notes = hazards(source, kind) if routes.kind_of(source) == "torch" else []
        told = {"folder": str(written), "files": routes.sizes_of(written), "notes": notes} | _language(written)
        if report is not None:
            told["report"] = _report(source, written, report, wanted.importance, questions)
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    for file, size in told["files"].items():
        click.echo(f"{size / 1e6:8.2f} MB  {file}", err=True)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if told["fallbacks"]:
        count, first = len(told["fallbacks"]), next(iter(told["fallbacks"].items()))
        click.echo(f"note: {count} matrices have rows that fill no block of 256, {first[0]} is {first[1]}", err=True)
    if report is not None:
        click.echo(f"report: {told['report']['page']}\n{told['report']['recommendation']}", err=True)
    click.echo(written)


def _language(written: Path) -> dict[str, Any]:
    """Return what the language file that was written is made of."""
    from handlens.export import routes
    from handlens.export.quantise import describe

    stored = describe(routes.language_of(written))
    return {"bits_per_weight": stored.bits_per_weight, "types": stored.kinds, "fallbacks": stored.fallbacks}


def _weighted(source: Path, wanted: "Wanted", file: Path) -> "Wanted":
    """Measure the importance matrix of a model in full precision."""
    import dataclasses

    from handlens.export.importance import write_importance
    from handlens.export.observe import PROMPT_TOKENS, importance_of_bundle
    from handlens.export.quality import full_bundle

    with full_bundle(source) as bundle:
        measured = importance_of_bundle(bundle)
    write_importance(measured, file, chunk_tokens=PROMPT_TOKENS)
    named: Importance = dataclasses.replace(measured, file=file.name)
    return dataclasses.replace(wanted, importance=named)


def _report(source: Path, written: Path, place: str, importance: "Importance | None", questions: int) -> dict[str, Any]:
    """Compare what was written with full precision; return where the report is and what it recommends."""
    from handlens.export.quality import compare_quality, full_bundle
    from handlens.export.quality_page import write_report

    page = Path(place) if place else written.with_name(f"{written.name}.report.html")
    with full_bundle(source) as full:
        found = compare_quality(full, written, importance=importance, questions=questions)
    write_report(found, page)
    return {"page": str(page), "json": str(page.with_suffix(".json")), "recommendation": found.recommendation}


@contextmanager
def _merged(model: Path, adapter: Path | None) -> Iterator[Path]:
    """Give the model folder, or a temporary one with the adapter merged."""
    if adapter is None:
        yield model
        return
    from handlens.errors import NeedsExtra

    try:
        from handlens.models.adapter import merge_adapter
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"merging an adapter ({cause.name} is missing)", "train") from None
    with tempfile.TemporaryDirectory(prefix="handlens-merge-") as folder:
        yield merge_adapter(model, adapter, Path(folder) / model.resolve().name)
