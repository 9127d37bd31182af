"""`dgasr lake` says what it did, and by its exit code whether all is well."""

import os
import shutil

import duckdb
import pytest

from tests.lake.conftest import write_two_days


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    lake = tmp_path_factory.mktemp("written") / "lake"
    write_two_days(str(lake))
    return lake


@pytest.fixture
def lake(written, tmp_path):
    return shutil.copytree(written, tmp_path / "lake")


def test_a_sound_lake_passes(dgasr, lake):
    code, out, _ = dgasr("lake", "check", "--lake", lake, "--deep")
    assert (code, out) == (0, "the lake is sound: 5 files, 4 recordings, 7 segments checked (all columns read)\n")


def test_a_damaged_lake_fails_and_says_what_to_do(dgasr, lake):
    os.truncate(next(lake.glob("transcripts/*/date=2026-01-02/row_kind=segment/*")), 9)
    code, out, _ = dgasr("lake", "check", "--lake", lake)
    assert code == 1
    assert "fault file_size" in out
    assert "dgasr lake forget recipe_id=f00d/date=2026-01-02" in out
    assert dgasr("lake", "forget", "recipe_id=f00d/date=2026-01-02", "--lake", lake)[0] == 2
    assert dgasr("lake", "forget", "recipe_id=f00d/date=2026-01-02", "--lake", lake, "--yes")[0] == 0
    assert dgasr("lake", "check", "--lake", lake)[0] == 0


def test_compaction_says_what_became_of_the_files(dgasr, lake):
    assert dgasr("lake", "compact", "--lake", lake)[:2] == (0, "no files worth merging\n")


def test_a_vacuum_without_yes_only_says_what_would_go(dgasr, lake):
    left = lake / "staging" / "f00d" / "s1" / "00000.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    os.utime(left, (0, 0))
    code, out, _ = dgasr("lake", "vacuum", "--lake", lake)
    assert code == 0
    done = "0 unused files and 1 staged files"
    assert out == f"staging/f00d/s1/00000.arrow\n{done} would be removed; add --yes to do it\n"
    assert left.exists()
    code, out, _ = dgasr("lake", "vacuum", "--lake", lake, "--yes", "--grace-days", "1")
    assert out == f"{done} were removed\n"
    assert not left.exists()


def test_where_no_lake_lies_the_request_is_wrong(dgasr, tmp_path):
    for command in (["check"], ["compact"], ["vacuum"], ["vacuum", "--yes"], ["files"], ["attach"]):
        code, _, err = dgasr("lake", *command, "--lake", tmp_path / "nowhere")
        assert (code, "no lake lies here" in err) == (2, True)


def test_the_files_that_readers_see_are_listed_one_a_line(dgasr, lake):
    code, out, _ = dgasr("lake", "files", "--lake", lake)
    assert code == 0
    assert sorted(out.splitlines()) == sorted(map(str, lake.glob("transcripts/*/*/row_kind=segment/*.parquet")))
    assert dgasr("lake", "files", "words", "--lake", lake)[0] == 2


def test_the_script_that_attaches_a_lake_answers_in_a_duckdb_of_its_own(dgasr, lake):
    code, out, _ = dgasr("lake", "attach", "--lake", lake)
    assert code == 0
    with duckdb.connect() as other:
        for statement in other.extract_statements(out):
            other.execute(statement)
        assert other.execute("select count(*) from segments").fetchall() == [(7,)]


def test_a_lake_of_a_newer_dgasr_is_refused_by_all_that_read_it(dgasr, lake):
    first = lake / "transcripts" / "_delta_log" / "00000000000000000000.json"
    first.write_text(first.read_text().replace('"dgasr.schema_version":"2"', '"dgasr.schema_version":"3"'))
    commands = [["lake", name] for name in ("check", "compact", "vacuum", "files", "attach")]
    for command in (*commands, ["sql", "words"], ["export", "--format", "txt"]):
        code, out, err = dgasr(*command, "--lake", lake)
        assert (code, "Upgrade dgasr" in out + err) == (1, True), command
