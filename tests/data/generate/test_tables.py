"""Cells, sizes and markdown are those of the printed table."""

import pytest

from handlens.data.generate import generate
from handlens.data.generate.markup import to_html
from handlens.data.generate.receipt_talk import NOT_PRESENT
from handlens.data.records import Record


@pytest.fixture(scope="module")
def tables() -> list[Record]:
    return [generate("tables", 51, index) for index in range(80)]


def test_table_is_what_is_printed(tables: list[Record]) -> None:
    for record in tables:
        assert record.table is not None
        assert [line.text for line in record.lines] == [cell for row in record.table for cell in row]
        assert 2 <= len(record.table[0]) <= 4
        assert 2 <= len(record.table) - 1 <= 5
        assert len({row[0] for row in record.table}) == len(record.table)


def test_answers_come_from_the_table(tables: list[Record]) -> None:
    tasks = set()
    for record in tables:
        assert record.table is not None
        header, *rows = record.table
        for turn in record.turns:
            tasks.add(turn.task)
            words = turn.question.rstrip("?.").split()
            column = [i for i, name in enumerate(header) if i and name.lower() in words]
            row = [row for row in rows if row[0] in words]
            if turn.task == "tables.cell":
                assert turn.answer == row[0][column[-1]]
            elif turn.task == "tables.missing":
                assert turn.answer == NOT_PRESENT
                assert row == []
            elif turn.task == "tables.size":
                assert turn.answer == str(len(header) if "columns" in words else len(rows))
            elif turn.task == "tables.html":
                assert turn.answer == to_html(record.table)
            else:
                lines = [line.strip("| ").split(" | ") for line in turn.answer.splitlines()]
                assert lines[1] == ["---"] * len(header)
                assert (tuple(lines[0]), *(tuple(line) for line in lines[2:])) == record.table
    assert tasks == {"tables.cell", "tables.missing", "tables.size", "tables.markdown", "tables.html"}
