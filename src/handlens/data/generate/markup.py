"""A table as text: GitHub markdown and HTML.

Boundary: rows of cells in, text out; the first row is the header.
"""

from collections.abc import Sequence


def to_markdown(table: Sequence[Sequence[str]]) -> str:
    """Return a GitHub table with single spaces.

    >>> print(to_markdown((("a", "b"), ("1", "2"))))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    header, *rows = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table)
    return "\n".join((header, "| " + " | ".join("---" for _ in table[0]) + " |", *rows))


def to_html(table: Sequence[Sequence[str]]) -> str:
    """Return a table of HTML, one row to a line.

    >>> print(to_html((("a", "b"), ("1", "<2"))))
    <table>
    <tr><th>a</th><th>b</th></tr>
    <tr><td>1</td><td>&lt;2</td></tr>
    </table>
    """
    rows = []
    for i, row in enumerate(table):
        tag = "td" if i else "th"
        rows.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "\n".join(("<table>", *rows, "</table>"))


def escape(text: str) -> str:
    """Return the text with the three signs of HTML escaped.

    >>> escape("a<b")
    'a&lt;b'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
