"""``handlens slices``: how a picture is divided, without any model."""

import json
import re
from pathlib import Path

import click

from handlens.core.images import MAX_PIXELS, Picture
from handlens.core.pages import open_any
from handlens.core.slicing import Size, SlicePlan, plan_slices
from handlens.families import family_named


class SizeType(click.ParamType):
    """``1920x1080``: width and height in pixels."""

    name = "WIDTHxHEIGHT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return (width, height)."""
        if isinstance(value, tuple):
            return value
        parts = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", str(value).strip(), flags=re.IGNORECASE)
        if parts is None:
            self.fail(f"'{value}' is no size; write width and height in pixels, for example 1920x1080", param, ctx)
        return int(parts[1]), int(parts[2])


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--size", "sizes", type=SizeType(), multiple=True, help="A size instead of a picture; repeatable.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of a picture.  [default: the family's]")
@click.option("--family", "family_name", default="nano", show_default=True, help="Version whose rules are used.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture with its grid.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=MAX_PIXELS,
    show_default=True,
    help="Largest picture that is opened.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def slices(
    images: tuple[str, ...],
    sizes: tuple[Size, ...],
    max_slices: int | None,
    family_name: str,
    picture: Path | None,
    max_pixels: int,
    as_json: bool,
) -> None:
    """Show how a picture is divided into slices.

    \b
    handlens slices examples/strip.png --picture grid.png
    handlens slices --size 1920x1080 --family 2.6 --json

    Prints the grid, the sizes and how many visual tokens the language model reads.
    """  # noqa: D301
    if not images and not sizes:
        raise click.UsageError("a picture or a --size is missing; for example: handlens slices photo.jpg")
    if picture and len(images) != 1:
        raise click.UsageError(f"--picture needs exactly one picture; {len(images)} were given")
    from handlens.cli.seen import describe, save_drawing
    from handlens.core.sight import plan_to_json

    family = family_named(family_name)

    def plan(width: int, height: int) -> SlicePlan:
        return plan_slices(
            width, height, side_px=family.side_px, max_slices=family.max_slices if max_slices is None else max_slices
        )

    pictures: list[Picture] = [open_any(image, max_pixels=max_pixels) for image in images]
    named = [(opened.name, plan(*opened.image.size)) for opened in pictures]
    named += [(f"{width}x{height}", plan(width, height)) for width, height in sizes]
    if as_json:
        click.echo(json.dumps([plan_to_json(row) for _, row in named]))
    else:
        for name, row in named:
            click.echo(describe(name, row, family.num_queries))
    if picture:
        save_drawing(pictures[0].image, named[0][1], picture)
        click.echo(f"wrote {picture}", err=True)
