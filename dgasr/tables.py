"""Columns and rows in, a table out: for a terminal, or in Markdown. The one writer of both."""

import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TextIO

from dgasr.errors import printable
from dgasr.records import has_no_width

GAP = "  "
"""Between two columns."""

PIPE_WIDTH = 120
"""Characters of a line where nobody's terminal says otherwise."""

MIN_WIDTH = 16
"""Characters that a cell keeps however narrow the terminal is; a column's name is never cut."""


def line_width(out: TextIO) -> int:
    """Say how many characters a line of a table has: those of a terminal, or what no terminal says otherwise."""
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if out.isatty() else PIPE_WIDTH


def format_table(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int) -> str:
    """Lay rows out in lines of `width` characters, numbers on the right.

    The widest columns are cut with an ellipsis until a line fits; where they would become too narrow to read, each row
    gets lines of its own, and nothing of it is cut.
    """
    columns = list(map(printable, columns))
    cells = [[cell(value) for value in row] for row in rows]
    widths = _fit(columns, cells, width)
    if widths is None:
        return "".join(_record(number, columns, row, width) for number, row in enumerate(cells, 1))
    is_number = [
        any(row[i] is not None for row in rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(columns))
    ]
    return "".join(
        GAP.join(map(_pad, line, widths, is_number)).rstrip() + "\n"
        for line in (columns, ["─" * w for w in widths], *cells)
    )


def markdown_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lay rows out as a Markdown table, taken one by one and nothing of them cut."""
    for line in (columns, ["---"] * len(columns)):
        yield _markdown_line(line)
    yield from map(_markdown_line, rows)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay rows out as a Markdown table, with a line end after the last one."""
    return "".join(markdown_lines(columns, rows))


def _markdown_line(values: Iterable[object]) -> str:
    """Write a row; a bar or a backslash in a cell ends no cell."""
    return "| " + " | ".join(cell(value).replace("\\", "\\\\").replace("|", "\\|") for value in values) + " |\n"


def cell(value: object) -> str:
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
        return "[" + ", ".join(map(cell, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {cell(item)}" for key, item in value.items()) + "}"
    return printable(str(value))


def _fit(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return the columns' widths, the widest narrowed until all fit; `None` where there are rows that cannot fit."""
    natural = [max(map(text_width, column)) for column in zip(columns, *cells, strict=True)]
    least = [min(w, max(MIN_WIDTH, text_width(name))) for w, name in zip(natural, columns, strict=True)]
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
    for name, value in zip(columns, cells, strict=True):
        parts = textwrap.wrap(value, max(MIN_WIDTH, width - name_width - len(GAP))) or [""]
        lines += [f"{head:{name_width}}{GAP}{part}".rstrip() for head, part in zip_longest([name], parts, fillvalue="")]
    return "\n".join(lines) + "\n"


def text_width(text: str) -> int:
    """Return how many character cells a terminal or a subtitle shows a text in: none for marks and what nobody sees."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if has_no_width(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _pad(text: str, width: int, is_right: bool) -> str:
    """Bring a cell to its width; sentences lose their end, URIs and ids their middle."""
    if text_width(text) > width:
        kept_end = "" if " " in text else text[-(width // 2) :]
        text = text[: 4 * width]  # hours of speech are one cell; what follows cannot show, even after combining marks
        while text_width(text) + text_width(kept_end) > width - 1:
            text = text[:-1]
        text += "…" + kept_end
    space = " " * (width - text_width(text))
    return space + text if is_right else text + space
