"""``handlens export``: torch weights in, a bundle for devices out."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", "out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle.")
@click.option("--quant", default="Q8_0", show_default=True, help="Language weights: F32, F16, BF16, Q8_0 or Q4_K_M.")
@click.option("--vision", default="fp32", show_default=True, help="Vision weights: fp32 or int8.")
@click.option("--name", help="Name of the model.  [default: the folder's]")
@click.option("--weights", is_flag=True, help="Copy the torch weights too, to train on from the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def export(model: Path, out: Path, quant: str, vision: str, name: str | None, weights: bool, as_json: bool) -> None:
    """Make a bundle that runs without torch.

    \b
    handlens export runs/nano/sft --to nano.bundle

    MODEL is a folder with config.json, model.safetensors and tokenizer.json. The bundle appears whole or not
    at all. Needs the extra 'train'.
    """  # noqa: D301
    from handlens.export.bundle import export_bundle

    folder = export_bundle(model, out, quant=quant, vision=vision, name=name, weights=weights)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "files": sizes}))
        return
    for file, size in sizes.items():
        click.echo(f"{size / 1e6:8.2f} MB  {file}", err=True)
    click.echo(folder)
