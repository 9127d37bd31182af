"""Tables for a terminal."""

from datetime import UTC, datetime

import pytest

from dgasr.tables import format_table, markdown_table

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def lines(columns: list[str], rows: list[tuple], width: int = 80) -> list[str]:
    return format_table(columns, rows, width).splitlines()


@pytest.mark.parametrize(
    ("columns", "rows", "width", "shown"),
    [
        ("ab", [("to be " * 9, "short")], 25, ["to be to be to be…  short"]),  # the widest is cut first
        ("u", [("s3://archive/2026/interviews/first.flac",)], 24, ["s3://archiv…s/first.flac"]),  # in the middle
        ("ab", [("音声", "x"), ("abcd", "y")], 80, ["音声  x", "abcd  y"]),  # two cells each
        ("a", [("one\n  two",)], 80, ["one\\n  two"]),  # names may differ in that alone
        (
            "ab",
            [("ที่นี่", "x"), ("नमस्ते", "y"), ("क\u200dष", "z")],
            80,
            ["ที่นี่    x", "नमस्ते  y", "क\u200dष    z"],
        ),  # marks take none
        ("w", [([{"word": "one", "end_s": 0.5}],)], 80, ["[{word: one, end_s: 0.500}]"]),
        ("abc", [(None, AT, True)], 80, ["   2026-01-02 03:04:05  true"]),
        ("p", [(1.5e-7,), (0.25,)], 80, ["1.5e-07", "  0.250"]),
    ],
)
def test_a_value_is_shown_on_one_line_and_cut_where_it_must_be(columns, rows, width, shown):
    assert lines(list(columns), rows, width)[2:] == shown


def test_numbers_stand_on_the_right_and_text_on_the_left():
    assert lines(["name", "n"], [("a", 1), ("b", 100)]) == ["name    n", "────  ───", "a       1", "b     100"]


def test_rows_too_wide_for_a_line_get_lines_of_their_own_and_lose_nothing():
    rows = [("some words " * 4, "b" * 20, 7)]
    assert lines(["text", "a_long_name", "n"], rows, width=36) == [
        "── 1 ──────",
        "text         some words some words",
        "             some words some words",
        "a_long_name  " + "b" * 20,
        "n            7",
    ]


def test_a_cell_of_hours_of_speech_is_cut_like_a_short_one():
    line = lines(["text"], [("seven " * 300_000,)], 40)[-1]
    assert line == lines(["text"], [("seven " * 30,)], 40)[-1]
    assert line.endswith("…")


def test_markdown_ends_no_cell_early():
    assert markdown_table(["x", "y"], [("a|b\\", None)]) == "| x | y |\n| --- | --- |\n| a\\|b\\\\ |  |\n"
