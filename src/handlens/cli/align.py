"""``handlens align``: answers that can be trusted, from feedback on their claims."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from handlens.errors import NeedsExtra, SettingError, did_you_mean

RECIPES = {
    "nano:rlaif": "Sample, divide, conquer, pair and learn, round after round, on generated scenes.",
    "rlaif": "The same for any model folder (--from) and your own pictures (--data).",
    "rlhf-v": "Learn from corrected answers (--pairs), changed words weighing more.",
    "measure": "Made-up things, the judge against the truth, and the warnings of ask --check.",
    "compare": "Every part of the method switched off in turn, as one table.",
}


NANO: dict[str, Any] = {
    "rounds": 1, "pictures": 100, "answers": 8, "max_tokens": 240, "difference": 2.0, "pairs_per_question": 2,
    "balance": False, "keep_facts": True, "trains": "language", "rate": 1.5e-5, "epochs": 1.0, "pairs_per_step": 16,
}  # fmt: skip
"""What nano:rlaif and compare have in place of the defaults: a small model needs plain pairs and few, large steps."""


@click.command()
@click.argument("recipe", required=False)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--from", "base", default="nano", show_default=True, help="Model folder to begin with, or nano.")
@click.option("--list", "as_list", is_flag=True, help="List the recipes.")
@click.option("--rounds", default=4, show_default=True, help="Times that the whole is repeated.")
@click.option("--pictures", default=300, show_default=True, help="Questions of each round.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set to ask about.  [default: generated scenes]")
@click.option("--answers", default=10, show_default=True, help="Answers sampled for each question.")
@click.option("--temperature", default=0.7, show_default=True, help="Of sampling.")
@click.option("--max-tokens", default=256, show_default=True, help="Longest answer.")
@click.option("--answers-from", default="", help="Another model, endpoint, or rules: compare its answers, off-policy.")
@click.option("--divider", default="rules", show_default=True, help="rules, whole, a model, or http://HOST/v1#MODEL.")
@click.option("--judge", default="truth", show_default=True, help="truth, policy, a model, or http://HOST/v1#MODEL.")
@click.option("--yes-no", is_flag=True, help="Ask nano about claims with yes or no, also where open questions fit.")
@click.option("--difference", default=1.0, show_default=True, help="Least difference of scores in a pair.")
@click.option("--pairs-per-question", default=2, show_default=True, help="Most pairs of one question.")
@click.option("--balance/--no-balance", default=True, help="Leave out pairs whose rejected answer is much longer.")
@click.option("--keep-facts/--any-facts", default=False, help="Prefer no answer with fewer supported claims.")
@click.option("--pairs", type=click.Path(path_type=Path), help="File of pairs, one object a line (rlhf-v).")
@click.option(
    "--loss", type=click.Choice(["sigmoid", "ipo", "length"]), default=None, help="Form of DPO.  [default: sigmoid]"
)
@click.option("--beta", type=float, help="Cost of leaving the reference.  [default: 0.1, rlhf-v 0.5]")
@click.option("--sft", default=0.0, help="Weight of the next-word loss of preferred answers.")
@click.option("--segment-weight", type=float, help="Weight of corrected words.  [default: 1, rlhf-v 5]")
@click.option("--lora", is_flag=True, help="Train small additions; the reference is the model without them.")
@click.option(
    "--trains", default="vision,resampler,language", show_default=True,
    help="Parts that learn, with commas; language alone looks at every picture once.",
)  # fmt: skip
@click.option("--rate", type=float, help="Learning rate.  [default: 5e-6, with --lora 5e-5]")
@click.option("--epochs", default=2.0, show_default=True, help="Times round the pairs.")
@click.option("--pairs-per-step", default=8, show_default=True, help="Pairs of one step.")
@click.option("--until", default="learn", show_default=True, help="Last station: sample divide conquer pairs learn.")
@click.option("--engine", default="local", show_default=True, help="local or ray.")
@click.option("--jobs", default=1, show_default=True, help="Processes that sample, divide and judge.")
@click.option("--seed", default=1, show_default=True, help="Of everything that is drawn.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each variant (compare).")
@click.option("--scenes", default=200, show_default=True, help="Held-out scenes (measure, compare).")
@click.option("--tasks", default=40, show_default=True, help="Held-out pictures of each general kind (compare).")
@click.option("--variants", default="", help="Some variants of compare, with commas.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one object at the end.")
def align(recipe: str | None, as_list: bool, as_json: bool, **asked: Any) -> int | None:
    """Align a model by feedback on the claims of its own answers.

    \b
    handlens align nano:rlaif --out runs/aligned
    handlens align nano:rlaif --out runs/aligned --from runs/nano/sft --judge http://localhost:8000/v1
    handlens align rlhf-v --out runs/corrected --pairs corrections.jsonl
    handlens align measure --from runs/aligned/aligned --judge nano --json

    Stop it at any moment: the same command goes on. Needs the extras 'train' and 'data'.
    """  # noqa: D301
    if as_list:
        for name, about in RECIPES.items():
            click.echo(f"{name}\n    {about}")
        return None
    if recipe is None:
        raise click.UsageError(f"missing argument 'RECIPE'; known: {', '.join(RECIPES)}")
    name = recipe.removeprefix("nano:") if recipe.startswith("nano:") else recipe
    if name not in ("rlaif", "rlhf-v", "measure", "compare"):
        raise SettingError(f"unknown recipe '{recipe}'{did_you_mean(recipe, RECIPES)}")
    if recipe in ("nano:rlaif", "compare", "nano:compare"):
        context = click.get_current_context()
        given = {key for key in NANO if context.get_parameter_source(key) != ParameterSource.DEFAULT}
        asked |= {key: value for key, value in NANO.items() if key not in given}
    if asked["out"] is None and name != "measure":
        raise click.UsageError("missing option '--out'; name the folder of the run")
    if name == "rlhf-v" and asked["pairs"] is None:
        raise click.UsageError("missing option '--pairs'; name a file of pairs, one object a line")
    try:
        from handlens.train.run import Paused
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"alignment ({cause.name} is missing)", "train") from None
    from handlens.cli.progress import progress_bar

    with progress_bar(recipe, "steps") as advance:

        def report(row: dict[str, Any]) -> None:
            told = " ".join(f"{key} {row[key]}" for key in ("variant", "seed", "round") if key in row)
            named = f"{told} {row.get('station', '')}".strip()
            news = " ".join(f"{key} {row[key]:.3f}" for key in ("preference", "right", "margin") if key in row)
            advance(row.get("step", 0), row.get("of", 1), news, name=named or recipe)

        try:
            result = {"rlaif": _rounds, "rlhf-v": _corrections, "measure": _measure, "compare": _compare}[name](
                asked, report
            )
        except Paused as paused:
            click.echo(f"handlens align: {paused}", err=True)
            return 128 + (paused.signal_number or signal.SIGTERM)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(_lines(result))
    return None


def _asked(asked: dict[str, Any], *, is_correction: bool = False) -> Any:
    """Return the alignment that the options ask for."""
    from handlens.align.dpo import Dpo
    from handlens.align.pairs import HowToPair
    from handlens.align.rounds import Alignment
    from handlens.align.sample import HowToSample
    from handlens.cli.training import model_folder
    from handlens.train.lora import Lora

    folder = model_folder(asked["base"])
    assert folder is not None and asked["out"] is not None
    lora = Lora(saved=()) if asked["lora"] else None
    dpo = Dpo(
        form=asked["loss"] or ("length" if is_correction else "sigmoid"),
        beta=asked["beta"] if asked["beta"] is not None else (0.5 if is_correction else 0.1),
        sft=asked["sft"],
        reference="adapter" if lora else "stored",
        segment_weight=asked["segment_weight"] or (5.0 if is_correction else 1.0),
    )
    sampling = HowToSample(
        num_answers=asked["answers"], temperature=asked["temperature"], max_tokens=asked["max_tokens"]
    )
    scoring: Any = "whole" if asked["divider"] == "whole" else "claims"
    pairing = HowToPair(
        scoring=scoring, difference=asked["difference"], per_question=asked["pairs_per_question"],
        balance=asked["balance"], keeps_facts=asked["keep_facts"],
    )  # fmt: skip
    return Alignment(
        model=folder, out=asked["out"], rounds=asked["rounds"], pictures=asked["pictures"], data=asked["data"],
        sampling=sampling, answers_from=asked["answers_from"], divider=asked["divider"], judge=asked["judge"],
        yes_no=asked["yes_no"], pairing=pairing, dpo=dpo, lora=lora, trains=_names(asked["trains"]),
        epochs=asked["epochs"], rate=asked["rate"] or (5e-5 if lora else 5e-6),
        pairs_per_step=asked["pairs_per_step"], seed=asked["seed"], until=asked["until"], engine=asked["engine"],
        jobs=asked["jobs"],
    )  # fmt: skip


def _names(listed: str) -> Any:
    """Return the names between the commas."""
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _rounds(asked: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    from handlens.align.rounds import align as run

    return run(_asked(asked), report)


def _corrections(asked: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    from handlens.align.rounds import learn_from_file

    return learn_from_file(_asked(asked, is_correction=True), asked["pairs"], report)


def _compare(asked: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    from handlens.align.experiments import VARIANTS, Experiment, run_experiment

    names = _names(asked["variants"]) or tuple(one.name for one in VARIANTS)
    seeds = tuple(range(asked["seed"], asked["seed"] + asked["seeds"]))
    return run_experiment(
        Experiment(base=_asked(asked), variants=names, seeds=seeds, scenes=asked["scenes"], tasks=asked["tasks"]),
        report,
    )


def _measure(asked: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure a model: rates of made-up things, itself or another as judge, and the warnings."""
    from handlens.align.measure import describe_all, figures_to_json, measure_judge, measure_warnings, rates, scenes
    from handlens.align.sample import open_policy

    def news(station: str) -> Callable[[int, int], None]:
        return lambda done, of: report({"station": station, "step": done, "of": of})

    policy = open_policy(asked["base"])
    by = policy if asked["judge"] in ("truth", "policy") else open_policy(asked["judge"])
    some = scenes(asked["scenes"])
    answers = describe_all(policy, some, max_tokens=asked["max_tokens"], news=news("describe"))
    result = {
        "model": policy.info.name,
        "judge": by.info.name,
        "scenes": len(some),
        "hallucination": figures_to_json(rates(answers, some)),
        "calibration": measure_judge(by, some, seed=asked["seed"], yes_no=asked["yes_no"], news=news("judge")),
        "warnings": measure_warnings(
            policy, some, answers, judge_with=by, yes_no=asked["yes_no"], news=news("warnings")
        ),
    }
    if asked["out"] is not None:
        from handlens.train.ledger import write_whole
        from handlens.train.run import make_folder

        make_folder(asked["out"])
        write_whole(asked["out"] / "measured.json", json.dumps(result | {"answers": answers}, indent=1) + "\n")
    return result


def _lines(result: dict[str, Any]) -> str:
    """Return a result for people."""
    if "hallucination" in result:
        return _measured_lines(result)
    if "rows" in result:
        from handlens.align.experiments import table_of

        return table_of(result["rows"]).rstrip()
    lines = []
    for one in result["rounds"]:
        pairs = one.get("pairs", {})
        learned = one.get("learn", {})
        told = [f"round {one['round']}"]
        told += [f"{pairs['pairs']} pairs from {pairs['answers']} answers"] if pairs else []
        told += [f"margin {learned['last'].get('margin')}"] if learned.get("last") else []
        lines.append(", ".join(told))
    return "\n".join([*lines, result["folder"]])


def _measured_lines(result: dict[str, Any]) -> str:
    lines = [f"{result['model']} on {result['scenes']} held-out scenes"]
    for name, one in result["hallucination"].items():
        lines.append(f"  {name:9} {one['value']:6.1f}  ({one['interval'][0]:.1f} to {one['interval'][1]:.1f})")
    lines.append(f"{result['judge']} as judge, {result['calibration']['unread']} claims unread")
    for name, one in result["calibration"].items():
        if name != "unread":
            lines.append(
                f"  {name:9} accuracy {one['accuracy']:.3f}, area {one['auc']:.3f}, "
                f"calibration error {one['calibration_error']:.3f}, {one['num']} claims"
            )
    told = result["warnings"]
    lines.append(f"warnings: {told['warned']} of {told['claims']} claims, {told['false']} are false")
    for name in ("precision", "recall"):
        one = told[name]
        lines.append(f"  {name:9} {one['value']:.3f}  ({one['interval'][0]:.3f} to {one['interval'][1]:.3f})")
    return "\n".join(lines)
