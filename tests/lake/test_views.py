"""Every view on an empty lake, and on three recordings with answers computed by hand."""

import math
import os
import re
import shutil
import tomllib
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake import views
from dgasr.lake.parts import commit_shard, write_run
from dgasr.lake.scans import REGISTERED
from dgasr.lake.schema import table_schema
from dgasr.lake.views import connect, view_statements
from dgasr.store import objects

MACROS = {name for name, text in view_statements().items() if "create or replace macro" in text}
VIEWS = sorted(set(view_statements()) - MACROS)

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


def ask(lake: str, query: str) -> list[tuple]:
    with connect(lake) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def small(small_lake):
    with connect(small_lake) as connection:
        yield lambda query: connection.execute(query).fetchall()


@pytest.mark.parametrize("view", [*VIEWS, *REGISTERED])
def test_an_empty_lake_answers_every_view(empty_lake, view):
    rows = ask(empty_lake, f"select * from {view}")
    assert rows == [] or (view == "confidence_histogram" and [row[2:] for row in rows] == [(0, None)] * 10)


@pytest.mark.parametrize("macro", sorted(MACROS))
def test_an_empty_lake_answers_every_macro(empty_lake, macro):
    assert ask(empty_lake, f"from {EVERY_MACRO[macro]}") == []


@pytest.mark.parametrize("name", sorted(view_statements()))
def test_a_file_is_named_for_what_it_creates_and_says_its_grain(name):
    text = view_statements()[name]
    assert re.findall(r"create or replace (?:view|macro) (\w+)", text) == [name]
    assert re.match(
        r"-- .+\n-- grain: .+\n(--  .+\n)*-- sources: .+\n-- units: .+\n(--  .+\n)*(-- cost: .+\n)?-- example: .+\n",
        text,
    )


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


def test_partition_columns_come_from_the_path(small):
    assert small("select distinct recipe_id, date from segments") == [("f00d", date(2026, 1, 2))]


def test_latest_transcripts_join_text_in_order(small):
    assert small("select uri, status, text, round(confidence, 4), num_flagged, num_words from latest_transcripts") == [
        ("/a/one.flac", "ok", "One two, two forty two", 0.8575, 1, 5),
        ("/a/three.txt", "rejected", "", None, 0, 0),
        ("/a/two.mp3", "partial", "three", 1.0, 0, 1),
    ]


def test_words_carry_times_of_the_recording(small):
    assert small("select word, segment_index, word_index, start_s, end_s from words where uri = '/a/one.flac'") == [
        ("One", 0, 0, 0.0, 2.0),
        ("two,", 0, 1, 2.0, 4.0),
        ("two", 0, 2, 4.0, 6.0),
        ("forty", 2, 0, 8.0, 9.0),
        ("two", 2, 1, 9.0, 10.0),
    ]


def test_search_ranks_the_phrase_first_and_gives_neighbours(small):
    columns = "uri, start_s, end_s, text_before, text, text_after"
    assert small(f"select {columns} from search('Forty two!')") == [
        ("/a/one.flac", 8.0, 10.0, "One two, two", "forty two", ""),
        ("/a/one.flac", 0.0, 6.0, "", "One two, two", "forty two"),
    ]


def test_the_score_is_bm25_and_once_more_the_weights_for_the_phrase(small):
    # 5 segments with 6 words; two holds in 2 of them, forty in 1; both segments that match have their own length.
    two, forty = math.log(1 + 3.5 / 2.5), math.log(1 + 4.5 / 1.5)
    short, long = 1.2 * (0.25 + 0.75 * 2 / 1.2), 1.2 * (0.25 + 0.75 * 3 / 1.2)
    best = (two + forty) * 2.2 / (1 + short) + two + forty
    other = two * 2 * 2.2 / (2 + long)
    assert [score for (score,) in small("select score from search('forty two')")] == pytest.approx([best, other])


def test_search_shows_no_more_than_it_is_asked_for(small):
    assert small("select text from search('forty two', max_results := 1)") == [("forty two",)]


def test_of_segments_that_score_the_same_the_surest_is_shown(empty_lake, make_shard):
    pieces = [("speech", 0, 3, "one six two", 0.5, ()), ("speech", 3, 6, "two six one", 0.9, ())]
    commit_shard(objects, empty_lake, make_shard(pieces=pieces))
    assert ask(empty_lake, "select text from search('one two', max_results := 1)") == [("two six one",)]


def test_search_does_not_take_a_part_for_the_word(small):
    assert small("from search('fort')") == small("from search('wo')") == []


def test_search_knows_letters_beyond_ascii(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard(pieces=[("speech", 0, 2, "L'Élan du café", 1.0, ())]))
    found = {term: len(ask(empty_lake, f"from search('{term}')")) for term in ("élan", "lan", "CAFÉ", "caf", "l")}
    assert found == {"élan": 1, "lan": 0, "CAFÉ": 1, "caf": 0, "l": 1}


def test_search_finds_the_parts_of_a_hyphenated_word(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard(pieces=[("speech", 0, 2, "Twenty-one!", 1.0, ())]))
    assert ask(empty_lake, "select text from search('twenty one')") == [("Twenty-one!",)]


def test_search_for_nothing_finds_nothing(small):
    assert small("select * from search('')") == []


def test_a_phrase_is_found_with_the_times_of_its_words(small):
    assert small("select uri, start_s, end_s, segment_index from phrase('TWO two')") == [("/a/one.flac", 2.0, 6.0, 0)]
    assert small("select start_s, end_s, text from phrase('forty')") == [(8.0, 9.0, "forty two")]


def test_a_phrase_does_not_go_on_in_the_next_segment(small):
    assert small("from phrase('two forty')") == small("from phrase('')") == []


def test_a_phrase_is_found_in_a_hyphenated_word(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard(pieces=[("speech", 0, 2, "Twenty-one!", 1.0, ())]))
    assert ask(empty_lake, "select start_s, end_s from phrase('twenty one')") == [(0.0, 2.0)]


def test_the_transcript_at_a_second_has_the_word_and_what_stands_around(small):
    columns = "start_s, text, word, word_start_s, word_end_s, text_before, text_after"
    assert small(f"select {columns} from transcript_at('/a/one.flac', 4)") == [
        (0.0, "One two, two", "two", 4.0, 6.0, "", "")
    ]
    assert small("select kind, word from transcript_at('/a/one.flac', 7.9)") == [("silence", None)]
    assert small("from transcript_at('/a/one.flac', 10)") == []


def test_speech_per_day_adds_up(small):
    columns = '"date", num_recordings, num_rejected, audio_h * 3600, speech_h * 3600, num_words'
    assert small(f"select {columns} from speech_per_day") == [(date(2026, 1, 2), 3, 1, 12.0, 9.5, 6)]
    assert small("select round(words_per_minute, 2) from speech_per_day") == [(37.89,)]


def test_speech_per_prefix_goes_as_deep_as_it_is_asked(small):
    assert small("select prefix, num_recordings from speech_per_prefix(0)") == [("/", 3)]
    assert small("select prefix, num_recordings from speech_per_prefix(7)") == [("/a/", 3)]


def test_flags_are_counted(small):
    counts = small("select flag, num_segments, duration_s, round(mean_confidence, 2) from flag_counts")
    assert counts == [("repetition", 1, 2.0, 0.55)]


def test_the_vocabulary_is_counted_without_case_and_punctuation(small):
    assert small("select word, num from vocabulary") == [("two", 3), ("forty", 1), ("one", 1), ("three", 1)]
    assert small("select per_million from vocabulary where word = 'two'") == [(500_000.0,)]


def test_recipes_say_what_they_transcribed(small):
    columns = "recipe_id, model, num_recordings, num_latest, audio_h * 3600, num_words"
    assert small(f"select {columns} from recipes") == [("f00d", None, 3, 3, 12.0, 6)]


def test_two_recipes_stand_side_by_side(empty_lake, make_shard):
    other = [
        ("speech", 0, 6, "one two three", 0.9, ()),
        ("silence", 6, 8, "", None, ()),
        ("speech", 8, 10, "forty", 0.5, ()),
    ]
    commit_shard(objects, empty_lake, make_shard())
    commit_shard(objects, empty_lake, make_shard(recipe_id="beef", pieces=other))
    assert ask(empty_lake, "select start_s, first_word, second_word from word_differences('f00d', 'beef')") == [
        (4.0, "two", "three"),
        (9.0, "two", "forty"),
    ]
    columns = "num_different, different_share, first_text, second_text"
    assert ask(empty_lake, f"select {columns} from compare_recipes('f00d', 'beef')") == [
        (2, 0.4, "One two, two forty two", "one two three forty")
    ]


def test_the_preferred_recipe_speaks_where_it_has_something_to_say(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard(pieces=[("speech", 0, 1, "newer", 1.0, ())]))
    earlier = make_shard().recordings[0]["transcribed_at"] - timedelta(days=1)
    older = make_shard(recipe_id="beef", transcribed_at=earlier, pieces=[("speech", 0, 1, "older", 1.0, ())])
    commit_shard(objects, empty_lake, older)
    assert ask(empty_lake, "select text from latest_transcripts") == [("newer",)]
    with connect(empty_lake, preferred_recipe="beef") as connection:
        assert connection.execute("select text from latest_transcripts").fetchall() == [("older",)]


def test_a_price_without_decode_runs_is_paid_for_the_run_itself(empty_lake, make_run):
    write_run(objects, empty_lake, make_run(audio_s=7200.0, wall_s=1800.0, gpu_hour_price=2.0))
    columns = "audio_h, device_h, cost, cost_per_audio_hour"
    assert ask(empty_lake, f"select {columns} from cost_per_hour") == [(2.0, 0.5, 1.0, 0.5)]


def test_equal_audio_is_found_under_two_names(empty_lake, make_shard):
    for number, digest in enumerate(["aa", "aa", "bb", None]):
        shard = make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac")
        shard.recordings[0]["audio_digest"] = digest
        commit_shard(objects, empty_lake, shard)
    assert ask(empty_lake, "select num_copies, decoded_s, copies_s, uris from duplicate_audio") == [
        (2, 10.0, 10.0, ["/a/0.flac", "/a/1.flac"])
    ]


def test_coverage_accounts_for_every_second(small):
    columns = "uri, declared_s, decoded_s, speech_s, dropped_s, dropped_as, missing_s, speech_share"
    assert small(f"select {columns} from coverage") == [
        ("/a/one.flac", 10.0, 10.0, 8.0, 2.0, "silence 2.00 s", 0.0, 0.8),
        ("/a/three.txt", None, 0.0, 0.0, 0.0, "", 0.0, None),
        ("/a/two.mp3", 5.0, 2.0, 1.5, 0.5, "silence 0.50 s", 3.0, 0.75),
    ]


def test_dropped_intervals_name_their_reason(small):
    assert small("select uri, start_s, end_s, duration_s, reason from dropped_intervals") == [
        ("/a/one.flac", 6.0, 8.0, 2.0, "silence"),
        ("/a/two.mp3", 1.5, 2.0, 0.5, "silence"),
    ]


def test_rejections_list_what_is_not_ok(small):
    assert small("select reason, status, uri, message from rejections") == [
        ("truncated", "partial", "/a/two.mp3", "/a/two.mp3: ends after 2 s of 5 s."),
        ("unknown_format", "rejected", "/a/three.txt", "/a/three.txt: no decoder knows it."),
    ]


def test_rejections_by_reason_count_them(small):
    assert small("select * from rejections_by_reason") == [
        ("truncated", "partial", 1, 1000, "/a/two.mp3"),
        ("unknown_format", "rejected", 1, 1000, "/a/three.txt"),
    ]


def test_throughput_is_audio_over_wall_time(small):
    assert small(
        "select device, num_recordings, num_rejected, audio_h * 3600, rtfx, peak_memory_mb from throughput"
    ) == [("cpu", 3, 1, 12.0, 4.0, 500.0)]


def test_suspicious_segments_show_their_flags(small):
    assert small("select uri, start_s, flags, text from suspicious_segments") == [
        ("/a/one.flac", 8.0, ["repetition"], "forty two")
    ]


def test_the_confidence_histogram_counts_every_word_once(small):
    histogram = {round(row[0], 1): row[2] for row in small("select * from confidence_histogram")}
    assert histogram == {0.0: 0, 0.1: 0, 0.2: 0, 0.3: 0, 0.4: 0, 0.5: 2, 0.6: 0, 0.7: 0, 0.8: 0, 0.9: 4}


def test_the_newest_version_of_an_object_is_the_latest(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard())
    one = make_shard()
    modified_at = one.recordings[0]["modified_at"] + timedelta(days=1)
    commit_shard(
        objects,
        empty_lake,
        make_shard(shard_id="s2", etag="v2", modified_at=modified_at, pieces=[("speech", 0, 1, "new", 1.0, ())]),
    )
    assert ask(empty_lake, "select text from latest_transcripts") == [("new",)]
    assert ask(empty_lake, "select count(*) from recordings") == [(2,)]


def test_a_recording_that_two_plans_put_into_two_shards_is_seen_once(empty_lake, make_shard):
    first = make_shard()
    later = first.recordings[0]["transcribed_at"] + timedelta(seconds=1)
    pieces = [("speech", 0, 10, "late", 1.0, ())]
    commit_shard(objects, empty_lake, make_shard(shard_id="s0", run_id="run2", transcribed_at=later, pieces=pieces))
    commit_shard(objects, empty_lake, first)
    assert ask(empty_lake, "select run_id from recordings") == [("run1",)]
    assert ask(empty_lake, "select text from segments order by segment_index") == [
        ("One two, two",),
        ("",),
        ("forty two",),
    ]


def test_a_recording_that_was_asked_for_again_is_seen_as_it_was_redone(empty_lake, make_shard):
    again = make_shard(shard_id="s2", pieces=[("speech", 0, 10, "redone", 1.0, ())])
    again.recordings[0]["take"] = 1
    commit_shard(objects, empty_lake, again)
    commit_shard(objects, empty_lake, make_shard())
    assert ask(empty_lake, "select text from segments") == [("redone",)]
    assert ask(empty_lake, "select text, take from latest_transcripts join recordings_latest using (uri)") == [
        ("redone", 1)
    ]


def test_a_question_about_one_date_or_recording_opens_no_other_part(empty_lake, make_shard):
    for number in range(4):
        modified_at = make_shard().recordings[0]["modified_at"] + timedelta(days=number)
        commit_shard(objects, empty_lake, make_shard(shard_id=f"s{number}", uri=f"/{number}", modified_at=modified_at))
    with connect(empty_lake) as connection:
        plan = connection.execute("explain analyze select text from segments where date = '2026-01-03'").fetchall()[0][
            1
        ]
    assert plan.count("Scanning Files: 1/4") == 2


def test_parts_are_plain_parquet_with_comments_and_units(small_lake):
    (path,) = Path(small_lake).glob("segments/recipe_id=f00d/date=2026-01-02/*.parquet")
    schema = pq.read_schema(path)
    assert schema.field("start_s").metadata[b"unit"] == b"s"
    assert schema.metadata[b"dgasr.schema_version"] == b"1"
    assert set(pq.read_table(f"{small_lake}/segments").column_names) == set(table_schema("segments").names)


def test_a_missing_lake_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no lake lies here"):
        connect(str(tmp_path / "nowhere"))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ConfigError, match=r"is no lake; it holds photo\.jpg"):
        connect(str(tmp_path))


def test_a_lake_without_commits_shows_nothing(small_lake, tmp_path):
    shutil.copytree(f"{small_lake}/segments", tmp_path / "segments")
    shutil.copytree(f"{small_lake}/recordings", tmp_path / "recordings")
    assert ask(str(tmp_path), "select count(*) from segments") == [(0,)]


@pytest.fixture
def lake_copy(small_lake, tmp_path):
    shutil.copytree(small_lake, tmp_path / "lake")
    return tmp_path / "lake"


def test_a_foreign_parquet_file_beside_the_parts_is_not_read(lake_copy):
    pq.write_table(pa.table({"x": [1]}), next(lake_copy.glob("segments/*/*")) / "foreign.parquet")
    assert ask(str(lake_copy), "select count(*) from segments") == [(5,)]


def test_a_half_written_part_is_named(lake_copy):
    part = next(lake_copy.glob("segments/*/*/*.parquet"))
    os.truncate(part, 100)
    with pytest.raises(IntegrityError, match=re.escape(str(part)) + ": has 100 bytes, and its commit names"):
        connect(str(lake_copy))


def test_a_missing_part_is_named(lake_copy):
    part = next(lake_copy.glob("recordings/*/*/*.parquet"))
    part.unlink()
    with pytest.raises(IntegrityError, match=re.escape(str(part)) + ": is missing"):
        connect(str(lake_copy))


def test_a_newer_schema_version_is_refused(lake_copy):
    commit = next(lake_copy.glob("commits/*/*.json"))
    commit.write_text(commit.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(IntegrityError, match="schema version 2, and this dgasr reads up to 1"):
        connect(str(lake_copy))


def test_a_stranger_among_the_commits_is_named(lake_copy):
    (lake_copy / "commits" / "recipe_id=f00d" / "x.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"x\.json: is no commit of a lake"):
        connect(str(lake_copy))


def test_missing_views_say_how_to_install(empty_lake, monkeypatch, tmp_path):
    monkeypatch.setattr(views, "SQL_FOLDERS", (tmp_path / "sql",))
    with pytest.raises(ConfigError, match="Install dgasr from a whole checkout"):
        connect(empty_lake)


def test_a_wheel_carries_the_views_to_where_they_are_looked_for():
    root = Path(__file__).parents[2]
    hatch = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]
    carried = hatch["build"]["targets"]["wheel"]["force-include"]
    assert {(root / target, root / source) for source, target in carried.items()} == {views.SQL_FOLDERS}


def test_a_lake_on_s3_answers_like_a_folder(s3_lake, three_recordings):
    commit_shard(objects, s3_lake, three_recordings)
    assert ask(s3_lake, "select uri, text from latest_transcripts where text <> ''") == [
        ("/a/one.flac", "One two, two forty two"),
        ("/a/two.mp3", "three"),
    ]


def test_an_empty_prefix_on_s3_is_no_lake(s3_lake):
    with pytest.raises(ConfigError, match="no lake lies here"):
        connect(s3_lake)


def test_a_missing_bucket_is_named(s3_lake):
    with pytest.raises(ConfigError, match="does not exist"):
        connect("s3://no-such-bucket/lake")
