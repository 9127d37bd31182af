"""Columns and rows in, a table for a terminal out. Knows no DuckDB and no lake."""

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

GAP = "  "
"""Between two columns."""

MIN_WIDTH = 8
"""Characters that a column keeps however narrow the terminal is."""


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> str:
    """Lay rows out in columns; the widest columns are cut with an ellipsis until a line fits.

    Args:
        columns: names.
        rows: values, as many in each row as there are columns.
        width: characters of a line.

    Returns:
        Header, rule and one line a row, each ended by a newline. Numbers stand on the right.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    is_number = [
        any(row[i] is not None for row in rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(columns))
    ]
    widths = _fit([max(_width(c) for c in column) for column in zip(columns, *cells, strict=True)], width)
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
    return " ".join(str(value).split())


def _fit(widths: list[int], width: int) -> list[int]:
    """Narrow the widest columns until all fit into `width`, none below `MIN_WIDTH`."""
    available = width - len(GAP) * (len(widths) - 1)
    while sum(widths) > available and max(widths) > MIN_WIDTH:
        widest = widths.index(max(widths))
        widths[widest] -= 1
    return widths


def _width(text: str) -> int:
    """Return how many character cells a terminal shows a text in."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, is_right: bool) -> str:
    """Bring a cell to its width."""
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    space = " " * (width - _width(text))
    return space + text if is_right else text + space
