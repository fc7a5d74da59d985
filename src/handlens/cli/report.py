"""``handlens report``: sustained speed, heat, energy and memory of a model on this machine."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("model", default="nano")
@click.option(
    "--minutes", type=click.FloatRange(min=0.0, min_open=True), default=10.0, show_default=True, help="How long."
)
@click.option("--image", default="1344x1344", show_default=True, metavar="WxH", help="Size of the drawn pictures.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Longest answer.")
@click.option("--power", type=click.Path(dir_okay=False, path_type=Path), help="CSV of a power meter: seconds,watts.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the record here, as JSON.")
@click.option("--page", "page_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts.")
@click.option("--compare", type=(Path, Path), help="Compare two records instead of measuring.")
@click.option("--json", "as_json", is_flag=True, help="Print the record.")
def report(
    model: str,
    minutes: float,
    image: str,
    max_tokens: int,
    power: Path | None,
    out: Path | None,
    page_file: Path | None,
    compare: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Measure how a model holds up over minutes.

    \b
    handlens report nano --minutes 10 --out here.json --page here.html
    handlens report --compare here.json there.json --page both.html

    Energy is measured where the machine has a meter (RAPL, battery, NVML) or you log one; it is never guessed.
    """  # noqa: D301
    from handlens.cli.progress import progress_bar
    from handlens.errors import SettingError
    from handlens.measure.report import measure_report, read_report
    from handlens.measure.report_page import name_records, page, ratio_of
    from handlens.measure.trial import parse_size

    for file in (out, page_file):
        if file is not None and not file.resolve().parent.is_dir():
            raise SettingError(f"cannot write {file}: there is no folder {file.resolve().parent}")
    if compare:
        records = [read_report(file) for file in compare]
    else:
        with progress_bar(f"report {model}", "%") as advance:
            records = [measure_report(
                model, minutes=minutes, size=parse_size(image), max_tokens=max_tokens, power_csv=power,
                progress=lambda share: advance(round(100 * share), 100),
            )]  # fmt: skip
    if out is not None:
        content = records[0] if len(records) == 1 else records
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        click.echo(f"wrote {out}", err=True)
    if page_file is not None:
        page_file.write_text(page(records, [file.name for file in compare or ()]), encoding="utf-8")
        click.echo(f"wrote {page_file}", err=True)
    if as_json:
        click.echo(json.dumps(records[0] if len(records) == 1 else records, ensure_ascii=False))
        return
    for record, name in zip(records, name_records(records, [file.name for file in compare or ()]), strict=True):
        found, energy = record["summary"], record["energy"]
        joules = energy["joules_per_picture"]
        spent = "energy not measurable here" if joules is None else f"{joules:.1f} J per picture ({energy['method']})"
        click.echo(
            f"{name}: {found['pictures_per_hour']:.0f} pictures per hour, "
            f"{found['sustained_tokens_per_second']:.1f} tokens/s, first word {found['cold_first_word_seconds']:.2f} s "
            f"cold and {found['warm_first_word_seconds']:.2f} s warm; late over early {found['late_over_early']:.2f}; "
            f"{spent}"
        )
    if len(records) == 2:
        first, second = (record["summary"] for record in records)
        shown = (("pictures per hour", "pictures_per_hour"), ("tokens/s", "sustained_tokens_per_second"),
                 ("first word, warm,", "warm_first_word_seconds"))  # fmt: skip
        ratios = [f"{label} {ratio_of(first[key], second[key])}" for label, key in shown]
        click.echo(f"second over first: {', '.join(ratios)}")
