from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
from pydantic import TypeAdapter, ValidationError

from dgasr.errors import ConfigError, Reason
from dgasr.lake.ledger import append_rows
from dgasr.lake.rows import run_row
from dgasr.stages.selection import ASSUMED_RTFX, Backlog, Forecast, Selection, forecast
from tests.stages.conftest import Place

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


def test_force_and_reasons_take_again_what_was_transcribed_before_the_start():
    forced = Selection(sources=("/a",), force=True).starting_at(NOON)
    assert forced == Selection(sources=("/a",), redo_before=NOON)
    assert (forced.takes_again(NOON - HOUR, None), forced.takes_again(NOON, None)) == (True, False)
    failed = Selection(sources=("/a",), reasons=("truncated",)).starting_at(NOON)
    assert failed.starting_at(NOON + HOUR) == failed  # a given time stays whenever a backfill goes on
    reasons = (Reason.TRUNCATED, Reason.UNREADABLE, None)
    assert [failed.takes_again(NOON - HOUR, reason) for reason in reasons] == [True, False, False]


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


def names(backlog: Backlog) -> list[str]:
    return [recording.uri.rpartition("/")[2] for recording in backlog]


def test_what_the_lake_holds_is_left_out_and_force_takes_it_again_under_a_higher_take(place: Place):
    place.transcribe(path_pattern="*.wav")
    backlog = place.backlog()
    assert names(backlog) == ["a.flac", "text.mp3"]
    assert (backlog.num_held, backlog.num_new) == (2, 2)
    backlog = place.backlog(force=True)
    assert names(backlog) == ["a.flac", "b.wav", "cut.wav", "text.mp3"]
    assert (backlog.num_again, backlog.num_new, backlog.num_held, backlog.take) == (2, 2, 0, 1)


def test_readers_see_the_newer_take_and_nothing_twice(place: Place):
    place.transcribe()
    second = place.transcribe(force=True)
    third = place.transcribe(force=True, path_pattern="*.flac")
    rows = place.ask("select split_part(uri, '/', -1), run_id, take from recordings order by uri")
    assert rows == [("a.flac", third.run_id, 2), *((n, second.run_id, 1) for n in ("b.wav", "cut.wav", "text.mp3"))]
    doubled = "select recording_id from segments group by recording_id, segment_index having count(*) > 1"
    assert place.ask(doubled) == []


def test_a_forced_backfill_that_was_stopped_goes_on_where_it_ended(place: Place):
    place.transcribe()
    start = datetime.now(UTC)
    place.transcribe(redo_before=start, path_pattern="*.wav")
    backlog = place.backlog(redo_before=start)
    assert names(backlog) == ["a.flac", "text.mp3"]
    assert (backlog.num_held, backlog.take) == (2, 1)


def test_failed_recordings_are_taken_again_once_by_their_reason_and_no_others(place: Place):
    place.transcribe()
    soundfile.write(place.archive / "new.wav", [0.0] * 16_000, 16_000)
    backlog = place.backlog(reasons=("truncated",))
    assert names(backlog) == ["cut.wav"]
    assert (backlog.num_listed, backlog.num_held, backlog.num_again, backlog.num_new) == (5, 3, 1, 0)
    failed = {"reasons": ("truncated",), "redo_before": datetime.now(UTC)}
    assert [place.transcribe(**failed).num_recordings for _ in range(2)] == [1, 0]


def test_a_change_of_recipe_follows_what_the_old_one_transcribed(place: Place):
    place.transcribe(path_pattern="*/b.wav")
    asked = {"recipe_id": "0123456789abcdef"}
    assert names(place.backlog(from_recipe=place.recipe.recipe_id, **asked)) == ["b.wav"]
    with pytest.raises(ConfigError, match="dgasr sql recipes"):
        place.backlog(from_recipe="0" * 16)


def test_a_list_and_dates_select_too(place: Place):
    (place.archive.parent / "list.txt").write_text(f"{place.archive}/b.wav\n{place.archive}/gone.wav\n")
    assert names(place.backlog(sources=(), uri_list=f"{place.archive.parent}/list.txt")) == ["b.wav", "gone.wav"]
    now = datetime.now(UTC)
    assert len(names(place.backlog(modified_from=now - HOUR, modified_until=now + HOUR))) == 4
    assert names(place.backlog(modified_from=now + HOUR)) == []


def test_a_changed_object_is_a_new_version_and_the_old_one_stays(place: Place, make_audio):
    place.transcribe()
    soundfile.write(place.archive / "b.wav", make_audio(2.5), 16_000)
    assert place.transcribe().num_recordings == 1
    versions = "select count(*)::int, count(distinct recording_id)::int from recordings where uri like '%/b.wav'"
    assert place.ask(versions) == [(2, 2)]
    longest = "select max_by(recording_id, decoded_s) from recordings where uri like '%/b.wav'"
    assert place.ask("select recording_id from recordings_latest where uri like '%/b.wav'") == place.ask(longest)


def test_the_same_audio_under_two_names_is_known_by_its_digest(place: Place):
    audio, rate_hz = soundfile.read(place.archive / "b.wav", dtype="int16")
    soundfile.write(place.archive / "twin.flac", audio, rate_hz)
    place.transcribe()
    twins = """
        select list(split_part(uri, '/', -1) order by uri) from recordings
        where audio_digest is not null group by audio_digest having count(*) > 1
    """
    assert place.ask(twins) == [(["b.wav", "twin.flac"],)]


def test_a_selection_that_leaves_everything_out_makes_no_lake(place: Place):
    summary = place.transcribe(path_pattern="nothing")
    assert (summary.num_recordings, summary.num_held) == (0, 0)
    assert not [path for path in Path(place.lake).rglob("*") if path.is_file()]


@pytest.mark.parametrize("again", [{"force": True}, {"reasons": ("truncated",)}])
def test_taking_again_from_an_empty_lake_is_a_first_take(place: Place, again: dict):
    assert place.backlog(**again).take == 0


NEW_RECIPE = "0123456789abcdef"


def forecast_of(place: Place, recipe_id: str = NEW_RECIPE, price: float = 0.0, **selection: object) -> Forecast:
    return forecast(place.backlog(recipe_id=recipe_id, **selection), place.lake, recipe_id, price)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_measured(lake: str, run_id: str, audio_s: float, wall_s: float, stage: str | None, recipe_id: str) -> None:
    row = run_row(
        run_id=run_id, recipe_id=recipe_id, recipe="{}", versions="{}", source="/a", device="cuda:0",
        started_at=datetime.now(UTC), num_recordings=1, num_partial=0, num_rejected=0, num_segments=1, num_words=1,
        audio_s=audio_s, wall_s=wall_s, peak_memory_bytes=1, stage=stage,
    )  # fmt: skip
    append_rows(lake, "runs", [row])


def test_without_a_lake_all_is_estimated_and_says_so(place: Place):
    found = forecast_of(place, price=3600.0)
    rates = {"a.flac": 16_000, "b.wav": 32_000, "cut.wav": 32_000, "text.mp3": 8_000}
    expected_s = sum((place.archive / name).stat().st_size / rate for name, rate in rates.items())
    assert (found.num_new, found.num_known, found.known_s) == (4, 0, 0.0)
    assert found.estimated_s == pytest.approx(expected_s)
    assert found.gpu_s == pytest.approx(expected_s / ASSUMED_RTFX)
    rows = dict(found.rows())
    assert "assumed: the lake holds no run of this recipe" in rows["GPU time, estimated"]
    assert rows["cost, estimated"] == f"{expected_s / ASSUMED_RTFX:,.2f} at 3600 an hour"
    with pytest.raises(ConfigError, match="must not be negative"):
        forecast_of(place, price=-1.0)


def test_nothing_is_written(place: Place):
    before = contents(place.archive.parent)
    forecast_of(place)
    assert contents(place.archive.parent) == before
    place.transcribe()
    (place.archive / "b.wav").unlink()
    before = contents(place.archive.parent)
    forecast_of(place, place.recipe.recipe_id, force=True)
    assert contents(place.archive.parent) == before


def test_durations_that_any_recipe_measured_are_known_and_what_is_held_or_not_selected_costs_nothing(place: Place):
    place.transcribe("a.flac")
    found = forecast_of(place, place.recipe.recipe_id, path_pattern="*[!3]")
    assert (found.num_listed, found.num_held, found.num_recordings) == (4, 1, 2)
    assert dict(found.rows())["not selected"] == "1"
    place.transcribe()
    found = forecast_of(place)
    assert (found.num_new, found.num_known) == (4, 3)  # the fourth is no audio: nobody knows how long it would be
    ((decoded_s,),) = place.ask("select sum(decoded_s) from recordings")
    assert found.known_s == pytest.approx(decoded_s)
    assert found.estimated_s == pytest.approx((place.archive / "text.mp3").stat().st_size / 8_000)


def test_speed_is_the_recipes_own_and_that_of_decoding_where_it_is_known(place: Place):
    write_measured(place.lake, "whole", 100.0, 50.0, None, NEW_RECIPE)
    write_measured(place.lake, "other", 9000.0, 1.0, "decode", "ffffffffffffffff")
    found = forecast_of(place)
    assert (found.rtfx, found.rtfx_origin) == (2.0, "measured on cuda:0, whole runs of this recipe: 1")
    write_measured(place.lake, "child1", 300.0, 10.0, "decode", NEW_RECIPE)
    write_measured(place.lake, "child2", 100.0, 10.0, "decode", NEW_RECIPE)
    write_measured(place.lake, "reader", 400.0, 1.0, "prepare", NEW_RECIPE)
    found = forecast_of(place)
    assert (found.rtfx, found.rtfx_origin) == (20.0, "measured on cuda:0, decode runs of this recipe: 2")
