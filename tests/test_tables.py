"""Tables for a terminal."""

from datetime import UTC, datetime

from dgasr.tables import format_table


def lines(columns: list[str], rows: list[tuple], width: int = 80) -> list[str]:
    return format_table(columns, rows, width).splitlines()


def test_numbers_stand_on_the_right_and_text_on_the_left():
    assert lines(["name", "n"], [("a", 1), ("b", 100)]) == ["name    n", "────  ───", "a       1", "b     100"]


def test_the_widest_column_is_cut_first():
    assert lines(["a", "b"], [("to be " * 9, "short")], width=25)[2] == "to be to be to be…  short"


def test_a_uri_is_cut_in_the_middle():
    assert lines(["uri"], [("s3://archive/2026/interviews/first.flac",)], width=24)[2] == "s3://archiv…s/first.flac"


def test_rows_too_wide_for_a_line_get_lines_of_their_own_and_lose_nothing():
    rows = [("some words " * 4, "b" * 20, 7)]
    assert lines(["text", "a_long_name", "n"], rows, width=36) == [
        "── 1 ──────",
        "text         some words some words",
        "             some words some words",
        "a_long_name  " + "b" * 20,
        "n            7",
    ]


def test_wide_characters_take_two_cells():
    assert lines(["a", "b"], [("音声", "x"), ("abcd", "y")])[2:] == ["音声  x", "abcd  y"]


def test_line_breaks_become_spaces():
    assert lines(["a"], [("one\n two",)])[2] == "one two"


def test_nested_values_are_readable():
    assert lines(["w"], [([{"word": "one", "end_s": 0.5}],)])[2] == "[{word: one, end_s: 0.500}]"


def test_nothing_is_shown_for_null_and_seconds_for_times():
    at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    assert lines(["a", "b", "c"], [(None, at, True)])[2] == "   2026-01-02 03:04:05  true"


def test_tiny_numbers_keep_their_digits():
    assert lines(["p"], [(1.5e-7,), (0.25,)])[2:] == ["1.5e-07", "  0.250"]


def test_a_cell_of_hours_of_speech_is_cut_like_a_short_one():
    line = format_table(["text"], [["seven " * 300_000]], 40).splitlines()[-1]
    assert line == format_table(["text"], [["seven " * 30]], 40).splitlines()[-1]
    assert line.endswith("…")
