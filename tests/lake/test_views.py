"""Every view on an empty lake, how it is written down, and how it is found."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable

from benchmarks.sql import has_rows
from dgasr.errors import ConfigError
from dgasr.lake import views
from dgasr.lake.schema import TABLES, table_schema
from dgasr.lake.views import connect, view_statements
from tests.lake.reading import ask

SCALARS = {name for name, text in view_statements().items() if not has_rows(text)}
MACROS = {name for name, text in view_statements().items() if "create or replace macro" in text} - SCALARS
VIEWS = sorted(set(view_statements()) - MACROS - SCALARS)

EVERY_MACRO = {
    "search": "search('one')",
    "phrase": "phrase('one two')",
    "transcript_at": "transcript_at('/a/one.flac', 1)",
    "speech_per_prefix": "speech_per_prefix(1)",
    "vocabulary_drift": "vocabulary_drift(date '2026-01-02')",
    "word_differences": "word_differences('a', 'b')",
    "compare_recipes": "compare_recipes('a', 'b')",
}
"""A call of each."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Function that asks a lake with nothing in it."""
    with connect(str(tmp_path_factory.mktemp("empty"))) as connection:
        yield lambda query: connection.execute(query).fetchall()


@pytest.mark.parametrize("view", [*VIEWS, *TABLES])
def test_an_empty_lake_answers_every_view(empty, view):
    rows = empty(f"select * from {view}")
    assert rows == [] or (view == "confidence_histogram" and [row[2:] for row in rows] == [(0, None)] * 10)


@pytest.mark.parametrize("macro", sorted(MACROS))
def test_an_empty_lake_answers_every_macro(empty, macro):
    assert empty(f"from {EVERY_MACRO[macro]}") == []


@pytest.mark.parametrize("name", sorted(view_statements()))
def test_a_file_is_named_for_what_it_creates_and_says_its_grain(name):
    text = view_statements()[name]
    assert re.findall(r"create or replace (?:view|macro) (\w+)", text) == [name]
    assert re.match(
        r"-- .+\n-- grain: .+\n(--  .+\n)*-- sources: .+\n-- units: .+\n(--  .+\n)*(-- cost: .+\n)?-- example: .+\n",
        text,
    )


def test_every_view_is_asked_of_three_recordings_and_of_an_invented_archive():
    folder = Path(__file__).parent
    small = "".join(path.read_text() for path in folder.glob("views/test_*.py"))
    for answers in (small, (folder / "test_generated.py").read_text()):
        assert set(view_statements()) - SCALARS <= set(re.findall(r"\bfrom (\w+)", answers))


def test_a_view_is_loaded_after_its_sources():
    order = list(view_statements())
    assert (
        order.index("recordings")
        < order.index("segments_latest")
        < order.index("words")
        < order.index("confidence_histogram")
    )


def test_recordings_have_the_declared_columns(small_lake):
    with connect(small_lake) as connection:
        connection.execute("select * from recordings")
        assert [column[0] for column in connection.description] == table_schema("recordings").names


def test_partition_columns_come_from_the_path(small_lake):
    assert ask(small_lake, "select distinct recipe_id, date from segments") == [("f00d", date(2026, 1, 2))]


def test_recordings_are_read_without_the_segments_files(small_lake):
    with connect(small_lake) as connection:
        plan = connection.execute("explain analyze select uri from recordings").fetchall()[0][1]
    assert "Scanning Files: 1/2" in plan


def test_comments_and_units_stand_in_the_tables_schema(small_lake):
    fields = {field.name: field for field in DeltaTable(f"{small_lake}/transcripts").schema().fields}
    assert fields["start_s"].metadata["unit"] == "s"
    assert set(fields) == set(table_schema("transcripts").names)


def test_missing_views_say_how_to_install(empty_lake, monkeypatch, tmp_path):
    monkeypatch.setattr(views, "SQL_FOLDERS", (tmp_path / "sql",))
    with pytest.raises(ConfigError, match="Install dgasr from a whole checkout"):
        connect(empty_lake)


def test_a_wheel_carries_the_views_to_where_they_are_looked_for():
    root = Path(__file__).parents[2]
    hatch = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]
    carried = hatch["build"]["targets"]["wheel"]["force-include"]
    assert {(root / target, root / source) for source, target in carried.items()} == {views.SQL_FOLDERS}
