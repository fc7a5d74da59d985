"""``handlens export``: torch weights in, a bundle for devices or the two files of llama.cpp out."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", "out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["bundle", "gguf"]),
    default="bundle",
    show_default=True,
    help="A bundle, or language and mmproj files for stock llama.cpp.",
)
@click.option("--quant", default="Q8_0", show_default=True, help="Language weights: F32, F16, BF16, Q8_0 or Q4_K_M.")
@click.option("--vision", default="fp32", show_default=True, help="Vision weights of a bundle: fp32 or int8.")
@click.option("--mmproj", is_flag=True, help="Put the vision part of llama.cpp into the bundle too.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Merge this PEFT adapter first.")
@click.option("--name", help="Name of the model.  [default: the folder's]")
@click.option("--weights", is_flag=True, help="Copy the torch weights too, to train on from the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def export(
    model: Path,
    out: Path,
    kind: str,
    quant: str,
    vision: str,
    mmproj: bool,
    adapter: Path | None,
    name: str | None,
    weights: bool,
    as_json: bool,
) -> None:
    """Make a bundle that runs without torch, or the two files of llama.cpp.

    \b
    handlens export runs/nano/sft --to nano.bundle
    handlens export MiniCPM-V-2_6 --to MiniCPM-V-2_6-gguf --format gguf --quant F16

    MODEL is a folder with config.json, model.safetensors and tokenizer.json. What is written appears whole or not
    at all. A bundle needs the extra 'train'; --format gguf does not.
    """  # noqa: D301
    from handlens.export.bundle import export_bundle
    from handlens.export.llama_cpp import export_gguf, hazards

    with _merged(model, adapter) as source:
        if kind == "gguf":
            folder = export_gguf(source, out, quant=quant, name=name)
        else:
            folder = export_bundle(source, out, quant=quant, vision=vision, name=name, weights=weights, mmproj=mmproj)
        notes = hazards(source, kind)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "files": sizes, "notes": notes}))
        return
    for file, size in sizes.items():
        click.echo(f"{size / 1e6:8.2f} MB  {file}", err=True)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(folder)


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
