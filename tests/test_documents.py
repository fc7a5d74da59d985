"""Documents stay true: their commands run, their links lead somewhere, their figures name a command."""

import doctest
import importlib.util
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[1]


def commands_in(file: Path) -> list[str]:
    """Return the ``handlens ...`` lines of the code blocks of a document, continued lines joined."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [found.group(1) for line in lines for found in re.finditer(r"(?:^|&& |\$ )(handlens [^&|>#]*)", line)]


def documents_with_commands() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("file", documents_with_commands(), ids=lambda file: file.name)
def test_commands_in_documents_exist(file: Path) -> None:
    from handlens.cli.main import handlens

    for line in commands_in(file):
        words = re.findall(r"\"[^\"]*\"|'[^']*'|\S+", line)[1:]
        command = [] if words[0].startswith("-") else words[:1]
        group = handlens.get_command(click.Context(handlens), words[0])
        if isinstance(group, click.Group) and words[1:] and words[1] in group.list_commands(click.Context(group)):
            command = words[:2]
        if words[:2] == ["train", "finetune"]:  # a command that hands over to another
            command = words[:2]
        shown = CliRunner().invoke(handlens, [*command, "--help"])
        assert shown.exit_code == 0, f"{file.name}: {line!r}: {shown.output}"
        for option in (word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(?:=.*)?", word)):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", shown.output), f"{file.name}: no {option} in {line!r}"


def test_readme_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:examples|docs|benchmarks|src|tests)/[\w./-]*\w", text))
    assert named, "the README names no file"
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_links_between_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
    broken = [
        f"{file.relative_to(ROOT)} -> {target}"
        for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in link.findall(file.read_text(encoding="utf-8"))
        if not (file.parent / target).exists()
    ]
    assert not broken


COLUMNS = ["figure", "value", "command", "commit", "machine", "date"]


def tables_in(text: str) -> list[list[list[str]]]:
    """Return the tables of a document as rows of cells, the header first, without the line of dashes."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    rows = [
        [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        for block in blocks
    ]
    return [[row for row in table if not set("".join(row)) <= set("-: ")] for table in rows]


def test_every_result_names_its_command() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    tables = [table for table in tables_in(text) if table[0][0] == "figure"]
    assert tables, "docs/results.md has no table that begins with the column 'figure'"
    machines = {row[0] for table in tables_in(text) if table[0][0] == "name" for row in table[1:]}
    for header, *rows in tables:
        assert header == COLUMNS
        for row in rows:
            assert len(row) == len(COLUMNS), row
            _, value, command, commit, machine, date = row
            assert re.search(r"\d", value), f"no number: {row}"
            assert re.fullmatch(r"`[^`]+`", command), f"no command: {row}"
            assert re.fullmatch(r"`?[0-9a-f]{7,40}`?", commit), f"no commit: {row}"
            assert machine in machines, f"a machine that the page does not describe: {row}"
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), f"no date: {row}"


def test_make_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for file in documents_with_commands():
        named = set(re.findall(r"`make ([a-z]+)`", file.read_text(encoding="utf-8")))
        assert named <= targets, f"{file.name}: {named - targets}"


def test_the_tour_shows_what_the_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = re.sub(r"^```.*$", "", (ROOT / "docs" / "tour.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    tour = doctest.DocTestParser().get_doctest(text, {}, "tour.md", "docs/tour.md", 0)
    assert len(tour.examples) > 20
    report: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST).run(tour, out=report.append)
    assert not report, "".join(report)


def test_the_command_page_is_what_the_program_says() -> None:
    spec = importlib.util.spec_from_file_location("make_documents", ROOT / "docs" / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == make.commands_page(), "run `make docs`"
    assert (ROOT / "docs" / "nano.md").read_text(encoding="utf-8") == make.card_page(), "run `make docs`"
