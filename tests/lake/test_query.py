"""`dgasr sql`: questions, formats, and errors that say what now."""

import csv
import io
import json
import re
import signal
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.lake import query
from dgasr.lake.files import _PartFile
from dgasr.lake.ledger import commit_shard
from dgasr.lake.query import Questions, run_sql
from tests.lake.reading import file_of


def answer(lake: str, query: str, format: str = "table") -> str:
    out = io.StringIO()
    run_sql(query, lake, format, out)
    return out.getvalue()


def test_a_question_gives_a_table(small_lake):
    assert answer(small_lake, "select uri, decoded_s from coverage") == (
        "uri           decoded_s\n"
        "────────────  ─────────\n"
        "/a/one.flac      10.000\n"
        "/a/three.txt      0.000\n"
        "/a/two.mp3        2.000\n"
        "3 rows\n"
    )


def test_a_view_and_a_file_are_asked_by_name(small_lake, tmp_path):
    assert answer(small_lake, "rejections", "csv") == answer(small_lake, "select * from rejections", "csv")
    (tmp_path / "q.sql").write_text("-- how many?\nselect count(*) as n from words;\n")
    assert json.loads(answer(small_lake, str(tmp_path / "q.sql"), "json")) == [{"n": 6}]


@pytest.mark.parametrize(
    ("query", "format", "text"),
    [
        (  # nested words and ISO times
            "select words, date, flags from segments where text = 'three'", "json",
            '[\n{"words": [{"word": "three", "start_s": 0.0, "end_s": 1.5, "confidence": 1.0}], "date": "2026-01-02", '
            '"flags": []}\n]\n',
        ),
        ("select uri from coverage where false", "json", "[]\n"),
        ("select 'nan'::double as a, 1.50 as b", "json", '[\n{"a": null, "b": 1.5}\n]\n'),
        ("select uri from coverage where false", "table", "uri\n───\n0 rows\n"),
        ("select 'a|b' as x", "md", "| x |\n| --- |\n| a\\|b |\n"),
    ],
)  # fmt: skip
def test_answers_are_written_in_the_format_that_is_asked_for(small_lake, query, format, text):
    assert answer(small_lake, query, format) == text


def test_csv_is_read_back_by_a_csv_reader(small_lake):
    rows = list(csv.DictReader(io.StringIO(answer(small_lake, "select text, flags from suspicious_segments", "csv"))))
    assert rows == [{"text": "forty two", "flags": '["repetition"]'}]


def test_a_table_fits_into_a_line_and_says_that_it_stops(empty_lake, monkeypatch):
    text = answer(empty_lake, "select repeat('long ', 100) as a, repeat('x', 300) as b, 7 as c")
    assert max(map(len, text.splitlines())) <= 120
    assert "…" in text
    monkeypatch.setattr(query, "TABLE_ROWS", 2)
    assert answer(empty_lake, "select unnest(range(3)) as n").endswith(
        "… the first 2 rows. Add a `limit`, or take --format csv for all of them.\n"
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select nope from words", 'column "nope" not found'),
        ("selec", "Table with name selec does not exist(.|\\n)*Tables and views: accuracy, .*, coverage, .*search"),
        ("select from from", "syntax error"),
        ("select 'a'::int", "Conversion Error"),
        ("select * from read_csv('/etc/passwd')", "reads the lake and nothing else"),
        ("copy words to '/tmp/words.csv'", "reads the lake and nothing else"),
        ("set enable_external_access = true", "sql: "),
        ("insert into runs values (1)", "sql: "),
        ("update extensions", "reads the lake and nothing else"),
        ("", "holds no question"),
        ("nowhere.sql", "nowhere.sql: the file cannot be read"),
    ],
)
def test_a_wrong_question_is_refused_in_words(small_lake, query, message):
    with pytest.raises(ConfigError, match=message):
        answer(small_lake, query)


def test_nothing_can_be_written_beside_the_parts(small_lake):
    before = sorted(Path(small_lake).rglob("*"))
    with pytest.raises(ConfigError, match="reads the lake"):
        answer(small_lake, "copy (select 1) to 'lake://transcripts/mine.parquet'")
    assert sorted(Path(small_lake).rglob("*")) == before


def test_other_files_are_written_where_that_is_allowed_and_the_lakes_own_never(small_lake, tmp_path):
    run_sql(f"copy (select 1 as a) to '{tmp_path}/a.csv'", small_lake, "csv", io.StringIO(), allow_writes=True)
    assert (tmp_path / "a.csv").read_text() == "a\n1\n"
    with pytest.raises(ConfigError, match="never writes"):
        run_sql("copy (select 1) to 'lake://runs/a.csv'", small_lake, "csv", io.StringIO(), allow_writes=True)


def test_several_questions_are_answered_one_after_the_other(small_lake):
    sql = "set variable a = 1; select getvariable('a') as a; select 2 as b"
    assert answer(small_lake, sql, "md") == "| a |\n| --- |\n| 1 |\n| b |\n| --- |\n| 2 |\n"
    with pytest.raises(ConfigError, match="--format csv has room for one answer"):
        answer(small_lake, sql, "csv")


def test_parquet_is_read_back(small_lake, tmp_path):
    with (tmp_path / "words.parquet").open("w") as out:
        run_sql("select word, start_s from words where uri = '/a/two.mp3'", small_lake, "parquet", out)
    assert pq.read_table(tmp_path / "words.parquet").to_pylist() == [{"word": "three", "start_s": 0.0}]


@pytest.mark.parametrize("is_in_footer", [False, True])
def test_a_damaged_file_is_no_fault_of_the_question_and_named_where_its_footer_is_broken(
    tmp_path, make_shard, is_in_footer
):
    for number in range(2):
        commit_shard(str(tmp_path), make_shard(f"s{number}", uri=f"/{number}"))
    path = file_of(tmp_path)
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    first, last = (footer, footer + 64) if is_in_footer else (100, footer - 10)
    data[first:last] = b"\xff" * (last - first)
    path.write_bytes(data)
    where = f"^{re.escape(str(path))}: " if is_in_footer else ""
    with pytest.raises(IntegrityError, match=f"{where}a part cannot be read"):
        answer(str(tmp_path), "select * from segments")


def test_a_store_that_stops_answering_may_work_next_time(small_lake, monkeypatch):
    with Questions(small_lake) as questions:
        monkeypatch.setattr(_PartFile, "_fetch", refuse)
        with pytest.raises(TransientError, match="the store did not answer"):
            questions.answer("select sum(len(words)) from segments", "csv", io.StringIO())


@pytest.fixture
def interruptible():
    """Ctrl-C as a shell has it, whatever tests before this one left in its place."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Early:
    """A connection that is told to stop before it has begun, as on a busy machine."""

    def __init__(self, connection) -> None:
        self._connection, self.is_told = connection, threading.Event()

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, *arguments):
        self.is_told.wait(20)
        return self._connection.execute(*arguments)

    def interrupt(self) -> None:
        self._connection.interrupt()
        self.is_told.set()


@pytest.mark.parametrize("is_early", [False, True])
def test_a_question_that_takes_too_long_can_be_stopped_whenever_ctrl_c_comes(small_lake, interruptible, is_early):
    out = io.StringIO()
    with Questions(small_lake) as questions:
        if is_early:
            questions._connection = Early(questions._connection)
        threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            questions.answer("select sum(a.range * b.range) from range(10_000_000) a, range(1_000) b", "csv", out)
        assert out.getvalue() == ""
        questions.answer("select 1 as a", "csv", out)
    assert out.getvalue() == "a\n1\n"


def refuse(*_: object) -> bytes:
    raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")
