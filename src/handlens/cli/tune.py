"""``handlens tune``: find the settings that suit this machine, and use them from then on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from handlens.measure.tune import Found, Option


@click.command()
@click.argument("model", default="nano")
@click.option("--goal", default="fastest", show_default=True, help='Such as "first word under 5 s", "under 3 GB".')
@click.option("--image", default="1344x1344", show_default=True, metavar="WxH", help="Size of the picture.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="When to stop.")
@click.option("--exhaustive", is_flag=True, help="Try everything, to see what the search misses.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw what was found, as SVG.")
@click.option("--no-save", is_flag=True, help="Write no profile.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def tune(
    model: str,
    goal: str,
    image: str,
    minutes: float,
    exhaustive: bool,
    picture: Path | None,
    no_save: bool,
    as_json: bool,
) -> None:
    """Find the settings that suit this machine.

    \b
    handlens tune nano
    handlens tune nano --goal "first word under 5 s and under 300 MB" --picture pareto.svg

    Every configuration runs in a process of its own, so one that crashes is reported and harms nothing. The best is
    written as a profile that every later run uses; `--no-profile` there ignores it.
    """  # noqa: D301
    from handlens.errors import SettingError
    from handlens.measure.geometry import geometry_for
    from handlens.measure.goal import parse_goal
    from handlens.measure.trial import Job, parse_size
    from handlens.measure.tune import Tuner, decide, space_of

    wanted, size = parse_goal(goal), parse_size(image)
    if picture is not None and (picture.suffix != ".svg" or not picture.resolve().parent.is_dir()):
        raise SettingError(f"cannot write {picture}: give a file that ends with .svg in a folder that exists")
    geometry = geometry_for(model)
    folder = geometry.folder
    if folder is None:
        raise SettingError(f"tune measures, so it needs weights; '{model}' is only a name; give a bundle")
    tuner = Tuner(
        folder, space_of(folder), size, geometry.language.width,
        say=lambda line: click.echo(f"tried {line}", err=True),
    )  # fmt: skip
    found = tuner.search(wanted, limit_seconds=60 * minutes, exhaustive=exhaustive)
    if not found.best.keeps(wanted):
        _complain(found)
    found, checked = decide(found, lambda setup: Job(bundle=folder, setup=setup, images=(size,), max_tokens=16))
    report = _report(found, checked)
    if not no_save:
        from handlens.engine.setup import save_profile

        facts = {key: report[key] for key in ("goal", "best", "default", "speedup")}
        report["profile"] = str(save_profile(folder, found.best.setup, facts))
    if picture is not None:
        picture.write_text(draw(found), encoding="utf-8")
        click.echo(f"wrote {picture}", err=True)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        show(found, report)


def _complain(found: "Found") -> None:
    from handlens.engine.memory import human
    from handlens.errors import SettingError

    best = found.best
    raise SettingError(
        f"no configuration reaches '{found.goal.text}'; the nearest ({best.setup.describe()}) has its first word after "
        f"{best.first_word_seconds:.1f} s, {best.tokens_per_second:.1f} tokens/s, {human(best.peak_bytes)}; "
        "no profile was written; ask for less, or give fewer slices or a smaller quantisation"
    )


def _report(found: "Found", checked: dict[str, Any]) -> dict[str, Any]:
    return {
        "goal": found.goal.text,
        "reached": found.best.keeps(found.goal),
        "best": found.best.to_json(),
        "default": found.default.to_json(),
        **checked,
        "pareto": [option.to_json() for option in found.front],
        "failed": [{"setup": t.setup.to_json(changed_only=True), "trouble": t.trouble} for t in found.failed],
        "trials": found.num_trials,
        "seconds": round(found.seconds, 1),
    }


def show(found: "Found", report: dict[str, Any]) -> None:
    """Print the front as a table, then the choice."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from handlens.engine.memory import human

    table = Table(title="what no other beats", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("first word", "tokens/s", "memory", "settings"):
        table.add_column(name, justify="left" if name == "settings" else "right")

    def row(option: "Option") -> tuple[str, ...]:
        return (f"{option.first_word_seconds:.2f} s", f"{option.tokens_per_second:.1f}", human(option.peak_bytes),
                option.setup.describe())  # fmt: skip

    for option in found.front[:20]:
        table.add_row(*row(option), style="bold" if option.setup == found.best.setup else None)
    console = Console()
    console.print(table)
    console.print(f"{found.num_trials} trials in {found.seconds:.0f} s; {len(found.failed)} did not run")
    for trial in found.failed:
        console.print(f"  {trial.setup.describe()}: {trial.trouble}")
    console.print(f"chosen for '{found.goal.text}': {found.best.setup.describe()}")
    if report["speedup"] and found.best.setup == found.default.setup:
        console.print("the defaults stay: run whole and in turns, nothing that was found is faster")
    elif report["speedup"]:
        console.print(f"a whole answer is {report['speedup']:.2f} times as fast as with the defaults (run in turns)")
    if "profile" in report:
        console.print(f"profile: {report['profile']}")


def draw(found: "Found") -> str:
    """Return the options as a chart: first word against memory; the front and the choice stand out."""
    from handlens.measure.charts import Series, chart

    def series(name: str, options: "list[Option]", *, is_ring: bool = False) -> Series:
        points = [(option.first_word_seconds, option.peak_bytes / 1e6) for option in options]
        labels = [f"{option.setup.describe()}: {option.tokens_per_second:.1f} tokens/s" for option in options]
        return Series(name=name, points=points, labels=labels, is_ring=is_ring)

    front = found.front
    beaten = [option for option in found.options if option not in front]
    default, best = (f"{name}: {option.setup.describe()}" for name, option in
                     (("ring, default", found.default), ("ring, chosen", found.best)))  # fmt: skip
    kinds = [series("beaten by another", beaten), series("what no other beats", front),
             series(default.removesuffix(": defaults"), [found.default], is_ring=True),
             series(best, [found.best], is_ring=True)]  # fmt: skip
    return chart(f"tune: {found.goal.text}", "seconds to the first word", "peak memory, MB", kinds)
