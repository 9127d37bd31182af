"""Columns and rows in, a table for a terminal out. Knows no DuckDB and no lake."""

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from dgasr.errors import printable

GAP = "  "
"""Between two columns."""

MIN_WIDTH = 16
"""Characters that a cell keeps however narrow the terminal is; a column's name is never cut."""


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> str:
    """Lay rows out in columns, or each row on lines of its own where the columns would become too narrow to read.

    Args:
        columns: names.
        rows: values, as many in each row as there are columns.
        width: characters of a line.

    Returns:
        Lines, each ended by a newline. In columns, the widest are cut with an ellipsis until a line fits, and numbers
        stand on the right; on lines of its own, nothing of a row is cut.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = _fit(columns, cells, width)
    if widths is None:
        return "".join(_record(number, columns, row, width) for number, row in enumerate(cells, 1))
    is_number = [
        any(row[i] is not None for row in rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(columns))
    ]
    lines = [list(columns), ["─" * w for w in widths], *cells]
    return "".join(
        GAP.join(_pad(cell, w, right) for cell, w, right in zip(line, widths, is_number, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _cell(value: object) -> str:
    """Write a value on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list):
        return "[" + ", ".join(_cell(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_cell(item)}" for key, item in value.items()) + "}"
    return printable(" ".join(str(value).split()))


def _fit(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return the columns' widths, the widest narrowed until all fit; `None` where there are rows that cannot fit."""
    natural = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    least = [min(w, max(MIN_WIDTH, _width(name))) for w, name in zip(natural, columns, strict=True)]
    available = width - len(GAP) * (len(columns) - 1)
    if sum(least) > available:
        return None if cells else natural
    while sum(natural) > available:
        _, widest = max((w, i) for i, w in enumerate(natural) if w > least[i])
        natural[widest] -= 1
    return natural


def _record(number: int, columns: Sequence[str], cells: Sequence[str], width: int) -> str:
    """Lay one row out with a line for each column, long values over several."""
    name_width = max(map(len, columns))
    lines = [f"── {number} " + "─" * max(0, name_width - 4 - len(str(number)))]
    for name, cell in zip(columns, cells, strict=True):
        parts = textwrap.wrap(cell, max(MIN_WIDTH, width - name_width - len(GAP))) or [""]
        lines += [f"{head:{name_width}}{GAP}{part}".rstrip() for head, part in zip_longest([name], parts, fillvalue="")]
    return "\n".join(lines) + "\n"


def _width(text: str) -> int:
    """Return how many character cells a terminal shows a text in."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, is_right: bool) -> str:
    """Bring a cell to its width; sentences lose their end, URIs and ids their middle."""
    if _width(text) > width:
        kept_end = "" if " " in text else text[-(width // 2) :]
        text = text[: 4 * width]  # hours of speech are one cell; what follows cannot show, even after combining marks
        while _width(text) + _width(kept_end) > width - 1:
            text = text[:-1]
        text += "…" + kept_end
    space = " " * (width - _width(text))
    return space + text if is_right else text + space


def format_markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Lay rows out as a Markdown table, line by line and nothing of it cut.

    Args:
        columns: names.
        rows: values, as many in each row as there are columns; taken one by one.
    """
    yield _markdown_line(columns)
    yield _markdown_line(["---"] * len(columns))
    for row in rows:
        yield _markdown_line([_cell(value) for value in row])


def _markdown_line(cells: Iterable[str]) -> str:
    """Write a row of a Markdown table; a bar or a backslash in a cell ends no cell."""
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(escaped) + " |\n"
