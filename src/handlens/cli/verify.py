"""``handlens verify``: is it the same model, stage by stage?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlens.core.images import Picture
    from handlens.verify.run import Report


@click.command()
@click.argument("model")
@click.option("--reference", type=click.Path(path_type=Path), help="Folder with a recorded reference.")
@click.option("--against", help="Another model; or 'llama.cpp' or 'torch': this model on that engine.")
@click.option("--record", type=click.Path(path_type=Path), help="Write what MODEL computes as a reference.")
@click.option("--picture", "files", multiple=True, help="Compare on this picture too; can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def verify(
    model: str, reference: Path | None, against: str | None, record: Path | None, files: tuple[str, ...], as_json: bool
) -> int:
    """Compare a model with another, or with a reference, stage by stage.

    \b
    handlens verify nano

    Slice grid, pixels, patch positions, vision tokens, visual tokens, prompt ids, logits, greedy text: the first
    stage that differs is named with the size of the difference and its likely cause. Exit code 0 means that all
    agree. Without --reference and --against, a folder with a reference in it is compared with that, a bundle with
    the torch weights in it, a torch folder with llama.cpp running its export.
    """  # noqa: D301
    from handlens.core.images import open_picture
    from handlens.models.store import find_model

    if reference is not None and against is not None:
        raise click.UsageError("--reference and --against exclude each other; give one of them")
    if reference is not None and files:
        raise click.UsageError("--picture adds to the standard pictures; a reference brings its own")
    pictures = [open_picture(file) for file in files]
    report = _compare(find_model(model), reference, against, record, pictures)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        for line in report.lines():
            click.echo(line)
        if report.recorded:
            click.echo(report.recorded)
    return 0 if report.agrees else 1


def _compare(
    model: Path, reference: Path | None, against: str | None, record: Path | None, pictures: "list[Picture]"
) -> "Report":
    from handlens.models.store import find_model
    from handlens.verify import run

    if reference is None and against is None:
        if record is not None:
            return run.record_model(model, record, pictures=pictures)
        against = run.find_opponent(model)
        reference = model if against == "reference" else None
    if reference is not None:
        return run.verify_reference(model, reference, record=record)
    if against == "llama.cpp":
        with run.exported_for_llama_cpp(model) as folder:
            name, kinds = f"llama.cpp running the F32 export of {model}", ("gguf", "torch")
            return run.verify_models(folder, model, pictures=pictures, record=record, kinds=kinds, name=name)
    if against == "torch":
        return run.verify_models(model, model, pictures=pictures, record=record, kinds=(None, "torch"))
    assert against is not None
    return run.verify_models(model, find_model(against), pictures=pictures, record=record)
