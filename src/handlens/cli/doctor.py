"""``handlens doctor``: is everything well on this machine, and does a picture stay here."""

import getpass
import json
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from handlens.measure.doctor import Check

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "-   "}


@click.command()
@click.argument("model", default="nano")
@click.option("--privacy", is_flag=True, help="Prove that pictures stay on this machine.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a report to share (.json or .md)."
)
@click.option("--record", is_flag=True, help="Record the answers of a bundle anew; exporting does it by itself.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def doctor(model: str, privacy: bool, report: Path | None, record: bool, as_json: bool) -> int:
    """Look at this machine, this installation and a model.

    \b
    handlens doctor
    handlens doctor --privacy
    handlens doctor --report doctor.md

    MODEL is nano or the folder of a bundle. Pictures with recorded answers are asked. The report holds no picture, no
    name and no path of yours. Exit code 1 when something does not work.
    """  # noqa: D301
    from handlens.measure.telemetry import switch_off
    from handlens.models.store import find_model

    switch_off()
    folder = find_model(model)
    if record:
        return _record(folder)
    checks = []
    for check in _look(folder, privacy=privacy):
        checks.append(check)
        if not as_json:
            click.echo(_line(check))
    found = _found(checks, model, privacy=privacy)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    if report:
        _write(report, found, folder)
    counts = {status: sum(check.status == status for check in checks) for status in MARKS}
    click.echo(
        f"{len(checks)} looked at: {counts['fail']} do not work, {counts['warn']} with a warning, "
        f"{counts['skip']} not known here", err=True,
    )  # fmt: skip
    return 1 if counts["fail"] else 0


def _look(folder: Path, *, privacy: bool) -> Iterable["Check"]:
    if privacy:
        from handlens.measure.privacy import check_privacy

        return check_privacy(folder)
    from handlens.measure.doctor import examine

    return examine(folder)


def _record(folder: Path) -> int:
    from handlens.engine.bundle import Bundle
    from handlens.errors import ModelError
    from handlens.measure.known import KNOWN, record_known

    Bundle.open(folder)
    if not record_known(folder):
        raise ModelError(f"{folder} cannot answer here, so nothing was recorded; `handlens doctor {folder}` says why")
    click.echo(folder / KNOWN)
    return 0


def _line(check: "Check") -> str:
    advice = f"\n     -> {check.advice}" if check.advice else ""
    return f"{MARKS[check.status]} {check.name}: {check.found}{advice}"


def _found(checks: Iterable["Check"], model: str, *, privacy: bool) -> dict[str, Any]:
    from handlens import __version__

    rows = [check.to_json() for check in checks]
    return {
        "handlens": __version__, "kind": "privacy" if privacy else "doctor", "model": model,
        "ok": all(row["status"] != "fail" for row in rows), "checks": rows,
    }  # fmt: skip


def _write(report: Path, found: dict[str, Any], folder: Path) -> None:
    """Write the report; its ending decides the form."""
    from handlens.errors import SettingError

    hidden = without_paths(found, folder)
    text = (
        json.dumps(hidden, ensure_ascii=False, indent=2) + "\n" if report.suffix.lower() == ".json" else _page(hidden)
    )
    try:
        report.write_text(text, encoding="utf-8")
    except OSError as cause:
        raise SettingError(f"cannot write {report}: {cause.strerror or cause}") from None
    click.echo(f"wrote {report}; it holds no picture, name or path of yours", err=True)


def _page(found: dict[str, Any]) -> str:
    lines = [f"# handlens {found['handlens']} {found['kind']}: {found['model']}", ""]
    for row in found["checks"]:
        lines.append(f"- **{row['status']}** {row['name']}: {row['found']}")
        lines += [f"  - {row['advice']}"] if row["advice"] else []
    facts = {row["name"]: row["facts"] for row in found["checks"] if row["facts"]}
    return "\n".join([*lines, "", "```json", json.dumps(facts, ensure_ascii=False, indent=1), "```"]) + "\n"


def without_paths(value: Any, folder: Path) -> Any:
    """Return the same values in which every path is its last part, and no user or machine is named."""
    if isinstance(value, dict):
        return {key: without_paths(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner, folder) for inner in value]
    if not isinstance(value, str):
        return value
    for path in sorted({str(folder), str(folder.resolve()), str(Path.home())}, key=len, reverse=True):
        value = value.replace(path, f"<{Path(path).name}>" if path != str(Path.home()) else "~")
    value = re.sub(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:;,()'\"<>]+)+[\\/]([^\\/\s:;,()'\"<>]+)", r".../\1", value)
    for name in (_user_name(), platform.node()):
        if len(name) > 2:
            value = re.sub(rf"\b{re.escape(name)}\b", "<hidden>", value)
    return value


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
