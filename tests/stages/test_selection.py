from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
from pydantic import TypeAdapter, ValidationError

from dgasr.errors import ConfigError, Reason
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages.embedded import transcribe_backlog
from dgasr.stages.heartbeat import Progress
from dgasr.stages.report import RunSummary
from dgasr.stages.selection import Backlog, Selection, find_backlog
from tests.stages.conftest import engine_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_the_range_of_dates_is_half_open():
    selection = Selection(sources=("/a",), modified_from=NOON, modified_until=NOON + HOUR)
    times = (NOON - HOUR, NOON, NOON + HOUR)
    assert [selection.covers("/a/b.wav", time) for time in times] == [False, True, False]


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [("*.wav", True), ("s3://b/2024/*", True), ("2024/*", False), ("*/0?.WAV", False), ("*/0[0-4].wav", True)],
)
def test_a_pattern_is_matched_against_the_whole_uri(pattern: str, covered: bool):
    assert Selection(sources=("s3://b",), path_pattern=pattern).covers("s3://b/2024/05/01.wav", NOON) is covered


def test_force_takes_again_what_was_transcribed_before_the_start():
    selection = Selection(sources=("/a",), force=True).starting_at(NOON)
    assert selection.takes_again(NOON - HOUR, None)
    assert not selection.takes_again(NOON, None)
    assert selection == Selection(sources=("/a",), redo_before=NOON)


def test_reasons_take_again_what_failed_for_them_and_nothing_else():
    selection = Selection(sources=("/a",), reasons=("truncated",)).starting_at(NOON)
    assert selection.takes_again(NOON - HOUR, Reason.TRUNCATED)
    assert not selection.takes_again(NOON - HOUR, Reason.UNREADABLE)
    assert not selection.takes_again(NOON - HOUR, None)


def test_a_given_time_stays_whenever_a_backfill_goes_on():
    selection = Selection(sources=("/a",), reasons=("truncated",), redo_before=NOON)
    assert selection.starting_at(NOON + HOUR) == selection


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "names no source"),
        ({"sources": ("/a",), "modified_from": datetime(2026, 1, 1)}, "has no time zone"),
        ({"sources": ("/a",), "modified_from": NOON, "modified_until": NOON}, "nothing is modified from"),
        ({"sources": ("/a",), "reasons": ("tired",)}, "no recording has reason tired. Known: object_missing"),
        ({"sources": ("/a",), "force": True, "redo_before": NOON}, "Give one of the two"),
    ],
)
def test_what_selects_nothing_or_contradicts_itself_is_refused(wrong: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Selection(**wrong)


def test_it_is_made_from_the_parameters_of_a_deployment_and_a_misspelt_one_is_refused():
    given = {"sources": ["s3://b/a/"], "modified_from": "2026-03-01T12:00:00Z", "reasons": ["truncated"]}
    made = TypeAdapter(Selection).validate_python(given)
    assert made == Selection(sources=("s3://b/a/",), modified_from=NOON, reasons=("truncated",))
    with pytest.raises(ValidationError, match="modified_form"):
        TypeAdapter(Selection).validate_python({"sources": ["/a"], "modified_form": "2026-03-01T12:00:00Z"})


def lake_of(archive: Path) -> str:
    return f"{archive.parent}/lake"


def backlog_of(archive: Path, recipe: Recipe, **selection: object) -> Backlog:
    asked = Selection(sources=(str(archive),), **selection).starting_at(datetime.now(UTC))
    return find_backlog(asked, lake_of(archive), recipe.recipe_id)


def run(archive: Path, recipe: Recipe, transcriber, **selection: object) -> RunSummary:
    backlog = backlog_of(archive, recipe, **selection)
    return transcribe_backlog(backlog, lake_of(archive), recipe, engine_of(recipe, transcriber), Progress())


def ask(archive: Path, query: str) -> list[tuple]:
    with connect(lake_of(archive)) as connection:
        return connection.execute(query).fetchall()


def names(backlog: Backlog) -> list[str]:
    return [recording.uri.rpartition("/")[2] for recording in backlog]


def test_what_the_lake_holds_is_left_out(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber, path_pattern="*.wav")
    backlog = backlog_of(archive, recipe)
    assert names(backlog) == ["a.flac", "text.mp3"]
    assert (backlog.num_held, backlog.num_new) == (2, 2)


def test_force_takes_all_of_it_again_under_a_higher_take(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    backlog = backlog_of(archive, recipe, force=True)
    assert names(backlog) == ["a.flac", "b.wav", "cut.wav", "text.mp3"]
    assert (backlog.num_again, backlog.num_held, backlog.take) == (4, 0, 1)


def test_readers_see_the_newer_take_and_nothing_twice(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    second = run(archive, recipe, transcriber, force=True)
    third = run(archive, recipe, transcriber, force=True, path_pattern="*.flac")
    rows = ask(archive, "select split_part(uri, '/', -1), run_id, take from recordings order by uri")
    assert rows == [
        ("a.flac", third.run_id, 2),
        ("b.wav", second.run_id, 1),
        ("cut.wav", second.run_id, 1),
        ("text.mp3", second.run_id, 1),
    ]
    doubled = "select recording_id from segments group by recording_id, segment_index having count(*) > 1"
    assert ask(archive, doubled) == []


def test_a_forced_backfill_that_was_stopped_goes_on_where_it_ended(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    start = datetime.now(UTC)
    run(archive, recipe, transcriber, redo_before=start, path_pattern="*.wav")
    backlog = backlog_of(archive, recipe, redo_before=start)
    assert names(backlog) == ["a.flac", "text.mp3"]
    assert (backlog.num_held, backlog.take) == (2, 1)


def test_failed_recordings_are_taken_again_by_their_reason_and_no_others(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    soundfile.write(archive / "new.wav", [0.0] * 16_000, 16_000)
    backlog = backlog_of(archive, recipe, reasons=("truncated",))
    assert names(backlog) == ["cut.wav"]
    assert (backlog.num_listed, backlog.num_held, backlog.num_again, backlog.num_new) == (5, 3, 1, 0)


def test_a_recording_that_fails_again_is_not_taken_a_third_time(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    start = datetime.now(UTC)
    failed = {"reasons": ("truncated",), "redo_before": start}
    assert run(archive, recipe, transcriber, **failed).num_recordings == 1
    assert run(archive, recipe, transcriber, **failed).num_recordings == 0


def test_a_change_of_recipe_follows_what_the_old_one_transcribed(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber, path_pattern="*/b.wav")
    asked = Selection(sources=(str(archive),), from_recipe=recipe.recipe_id)
    assert names(find_backlog(asked, lake_of(archive), "0123456789abcdef")) == ["b.wav"]


def test_a_recipe_that_the_lake_never_held_cannot_be_followed(archive: Path, recipe: Recipe):
    with pytest.raises(ConfigError, match="dgasr sql recipes"):
        backlog_of(archive, recipe, from_recipe="0" * 16)


def test_a_list_and_dates_select_too(archive: Path, recipe: Recipe):
    (archive.parent / "list.txt").write_text(f"{archive}/b.wav\n{archive}/gone.wav\n")
    asked = Selection(uri_list=f"{archive.parent}/list.txt")
    assert names(find_backlog(asked, lake_of(archive), recipe.recipe_id)) == ["b.wav", "gone.wav"]
    now = datetime.now(UTC)
    assert names(backlog_of(archive, recipe, modified_from=now - HOUR, modified_until=now + HOUR)) == [
        "a.flac",
        "b.wav",
        "cut.wav",
        "text.mp3",
    ]
    assert names(backlog_of(archive, recipe, modified_from=now + HOUR)) == []


def test_a_changed_object_is_a_new_version_and_the_old_one_stays(
    archive: Path, recipe: Recipe, transcriber, make_audio
):
    run(archive, recipe, transcriber)
    soundfile.write(archive / "b.wav", make_audio(2.5), 16_000)
    assert run(archive, recipe, transcriber).num_recordings == 1
    versions = "select count(*)::int, count(distinct recording_id)::int from recordings where uri like '%/b.wav'"
    assert ask(archive, versions) == [(2, 2)]
    latest = "select latest.decoded_s = max(every.decoded_s) from recordings_latest latest, recordings every where latest.uri = every.uri and latest.uri like '%/b.wav' group by latest.decoded_s"  # noqa: E501
    assert ask(archive, latest) == [(True,)]


def test_the_same_audio_under_two_names_is_known_by_its_digest(archive: Path, recipe: Recipe, transcriber):
    audio, rate_hz = soundfile.read(archive / "b.wav", dtype="int16")
    soundfile.write(archive / "twin.flac", audio, rate_hz)
    run(archive, recipe, transcriber)
    twins = """
        select list(split_part(uri, '/', -1) order by uri) from recordings
        where audio_digest is not null group by audio_digest having count(*) > 1
    """
    assert ask(archive, twins) == [(["b.wav", "twin.flac"],)]


def test_a_selection_that_leaves_everything_out_makes_no_lake(archive: Path, recipe: Recipe, transcriber):
    summary = run(archive, recipe, transcriber, path_pattern="nothing")
    assert (summary.num_recordings, summary.num_held) == (0, 0)
    assert not [path for path in Path(lake_of(archive)).rglob("*") if path.is_file()]


@pytest.mark.parametrize("again", [{"force": True}, {"reasons": ("truncated",)}])
def test_taking_again_from_an_empty_lake_is_a_first_take(archive: Path, recipe: Recipe, again: dict):
    assert backlog_of(archive, recipe, **again).take == 0
