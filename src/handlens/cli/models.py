"""``handlens models``: what is on this machine, fetch, remove, make, merge."""

import json
from pathlib import Path

import click


@click.group()
def models() -> None:
    """List, show, fetch, remove and make models.

    \b
    handlens models list

    Fetched and made models lie in the cache folder of the user (HANDLENS_CACHE names another) and are used by name.
    """  # noqa: D301


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one list.")
def list_(as_json: bool) -> None:
    """List the models that can be named.

    \b
    handlens models list
    """  # noqa: D301
    from handlens.models.store import list_models

    entries = list_models()
    if as_json:
        rows = [
            {"name": entry.name, "folder": str(entry.folder), "bytes": entry.num_bytes, "ships": entry.ships}
            for entry in entries
        ]
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    for entry in entries:
        click.echo(f"{entry.name:<40} {entry.num_bytes / 1e6:10.1f} MB  {entry.folder}")


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def show(model: str, as_json: bool) -> None:
    """Say what a model is: family, sizes, licence, hashes, what it needs.

    \b
    handlens models show nano
    """  # noqa: D301
    from handlens.models.card import describe_model
    from handlens.models.store import find_model

    card = describe_model(model, find_model(model))
    if as_json:
        click.echo(json.dumps(card.to_json(), ensure_ascii=False))
        return
    what = card.family if card.kind == "adapter" else f"{card.kind} of family {card.family}"
    click.echo(f"{card.name}: {what}, {card.num_bytes / 1e6:.1f} MB in {card.folder}")
    if card.parameters:
        click.echo(f"  parameters  {card.parameters:,}")
    click.echo(f"  licence     {card.licence}")
    click.echo(
        f"  needs       {card.to_json()['needs']['install']}; about {card.memory_bytes / 1e6:.0f} MB for weights"
    )
    for name, facts in card.files.items():
        click.echo(f"  {facts['bytes'] / 1e6:10.2f} MB  {facts['sha256']}  {name}")
    if card.notice:
        click.echo(f"  {card.notice}")


@models.command()
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit.  [default: the latest]")
@click.option("--only", multiple=True, help="Pattern of files, for example '*Q4_K_M.gguf'; can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def pull(name: str, revision: str | None, only: tuple[str, ...], as_json: bool) -> None:
    """Fetch a model from Hugging Face; run again, it goes on where it stopped.

    \b
    handlens models pull openbmb/MiniCPM-V-2_6

    Every file is compared with the hash that the hub names. No code and no pickle is fetched.
    """  # noqa: D301
    from handlens.cli.progress import progress_bar
    from handlens.models.pull import pull_model

    with progress_bar(f"fetch {name}", "bytes") as advance:
        folder = pull_model(name, revision=revision, only=only, advance=advance)
    click.echo(json.dumps({"name": name, "folder": str(folder)}) if as_json else str(folder))


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def rm(name: str, as_json: bool) -> None:
    """Remove a fetched or made model.

    \b
    handlens models rm openbmb/MiniCPM-V-2_6
    """  # noqa: D301
    from handlens.models.store import remove_model

    num_bytes = remove_model(name)
    click.echo(json.dumps({"name": name, "bytes": num_bytes}) if as_json else f"{num_bytes / 1e6:.1f} MB freed")


@models.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--to", "out", type=click.Path(path_type=Path), required=True, help="Folder of the merged model.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def merge(model: Path, adapter: Path, out: Path, as_json: bool) -> None:
    """Add a PEFT adapter to the weights of its model.

    \b
    handlens models merge MiniCPM-V-2_6 my-adapter --to merged

    The official layout comes out, every tensor in the type it had. Needs the extra 'train'.
    """  # noqa: D301
    from handlens.errors import NeedsExtra

    try:
        from handlens.models.adapter import merge_adapter
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"merging an adapter ({cause.name} is missing)", "train") from None
    folder = merge_adapter(model, adapter, out)
    click.echo(json.dumps({"folder": str(folder)}) if as_json else str(folder))


@models.command()
@click.argument("name")
@click.option("--random", "is_random", is_flag=True, help="Random weights; the only kind there is.")
@click.option("--to", "out", type=click.Path(path_type=Path), help="Folder.  [default: in the store, NAME-random]")
@click.option("--quant", default="Q4_K_M", show_default=True, help="Language weights: F16, BF16, Q8_0 or Q4_K_M.")
@click.option(
    "--vision", default="int8", show_default=True, type=click.Choice(["int8", "fp32"]), help="Vision weights."
)
@click.option("--mmproj", is_flag=True, help="Also write the vision part of llama.cpp.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def make(
    name: str, is_random: bool, out: Path | None, quant: str, vision: str, mmproj: bool, seed: int, as_json: bool
) -> None:
    """Write a model of random weights at the true size of a released version, to measure memory and speed.

    \b
    handlens models make minicpm-llama3-v-2.5 --random

    NAME is minicpm-v, minicpm-v-2, minicpm-llama3-v-2.5, minicpm-v-2.6, minicpm-v-4 or minicpm-v-4.5. Weights are
    drawn quantised: an 8B model needs less than 2 GiB to be written. Needs the extra 'train'.
    """  # noqa: D301
    from handlens.cli.progress import progress_bar
    from handlens.models.make import make_random, read_sizes
    from handlens.models.released import find_family, released_config
    from handlens.models.store import folder_of

    if not is_random:
        raise click.UsageError("give --random: weights can only be drawn; real ones come with `handlens models pull`")
    released, family = find_family(name)
    own = f"{released}-random"
    with progress_bar(f"make {released}", "tensors") as advance:
        folder = make_random(
            released_config(family),
            out or folder_of(own),
            quant=quant,
            vision=vision,
            mmproj=mmproj,
            seed=seed,
            name=own,
            progress=advance,
        )
    sizes = read_sizes(folder)
    if as_json:
        click.echo(json.dumps({"name": own, "folder": str(folder), "family": family, "files": sizes}))
        return
    for file, size in sizes.items():
        click.echo(f"{size / 1e6:10.2f} MB  {file}", err=True)
    click.echo(folder)
