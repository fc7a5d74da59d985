"""Documents stay true: their commands run, their links lead somewhere, their figures name a command."""

import re
from pathlib import Path

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
    from handlens.cli.main import main

    for line in commands_in(file):
        words = re.findall(r"\"[^\"]*\"|'[^']*'|\S+", line)[1:]
        command = [] if words[0].startswith("-") else words[:1]
        shown = CliRunner().invoke(main, [*command, "--help"])
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


def test_every_result_names_its_command() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not set(line) <= set("|-: ")
    ]
    headers = [row for row in rows if row[0].lower() == "figure"]
    assert headers, "docs/results.md has no table that begins with the column 'figure'"
    for row in rows:
        if row in headers:
            assert [cell.lower() for cell in row] == ["figure", "value", "command", "commit", "machine", "date"]
            continue
        assert len(row) == 6, row
        assert all(row), f"an empty cell: {row}"
        assert re.fullmatch(r"`[^`]+`", row[2]), f"no command: {row}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row[5]), f"no date: {row}"


def test_make_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for file in documents_with_commands():
        named = set(re.findall(r"`make ([a-z]+)`", file.read_text(encoding="utf-8")))
        assert named <= targets, f"{file.name}: {named - targets}"
