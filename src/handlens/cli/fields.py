"""``handlens fields``: a picture and a JSON schema in, values with confidence and place out."""

import json
from typing import TYPE_CHECKING, Any

import click

from handlens.cli.engine_options import engine_choices, engine_options
from handlens.core.images import MAX_PIXELS

if TYPE_CHECKING:
    from handlens.fields.answers import FieldAnswer


@click.command()
@click.argument("image")
@click.option("--schema", "source", required=True, help="A JSON schema: a file, or the JSON itself.")
@click.option("--model", default="nano", show_default=True, help="nano, or the folder of a bundle or torch model.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of the picture.  [default: the model's]")
@click.option(
    "--look-again", type=click.FloatRange(0, 1), default=0.9, show_default=True,
    help="Ask an answer that is less sure than this again, on its slice, enlarged; 0 never does.",
)  # fmt: skip
@click.option("--no-places", is_flag=True, help="Do not look for slices and boxes: one question per field.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@engine_options
def fields(
    image: str, source: str, model: str, max_slices: int | None, look_again: float, no_places: bool, as_json: bool
) -> None:
    """Read the fields of a JSON schema from a picture, and say how sure and from where.

    \b
    handlens fields examples/receipt.png --schema examples/receipt.schema.json
    handlens fields page.pdf#2 --schema invoice.json --json

    IMAGE is a file, a page of a PDF (page.pdf#2), or - for standard input. A field that the picture does not show is
    answered with 'not present'.
    """  # noqa: D301
    from handlens.fields.schema import fields_of, read_schema

    schema = read_schema(source)
    fields_of(schema)  # a schema that cannot be used is named before anything is loaded
    import handlens
    from handlens.cli.ask import _open as open_one
    from handlens.core.sight import look_at, sight_to_json
    from handlens.fields.answers import fields_to_json

    picture = open_one(image, MAX_PIXELS)
    opened = handlens.load(model, **engine_choices())
    if opened.info.notice:
        click.echo(f"{opened.info.name}: {opened.info.notice}", err=True)
    found = opened.fields(
        picture, schema, max_slices=max_slices, find=not no_places, look_again_below=look_again
    )  # fmt: skip
    if not found.is_calibrated:
        click.echo("confidence is the model's own probability; nothing was measured for these weights", err=True)
    if as_json:
        sight = look_at(picture, found.seen.plans[0], opened.info.num_queries)
        report: dict[str, Any] = {"model": opened.info.name, **fields_to_json(found), "image": sight_to_json(sight)}
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    width = max(len(one.field.name) for one in found.answers)
    for one in found.answers:
        click.echo(_line(one, width))


def _line(one: "FieldAnswer", width: int) -> str:
    """Return one field for people: name, value as printed, confidence, place."""
    from handlens.cli.ask import printable

    where = ""
    if one.place and one.box:
        place = one.place.slice
        number = "whole picture" if place.row is None else f"slice {place.slice}"
        where = f"  [{number}, box {' '.join(map(str, one.box))}]"
    again = "  looked twice" if one.looks > 1 else ""
    return f"{one.field.name:{width}}  {printable(one.text)}  {one.confidence:.0%}{where}{again}"
