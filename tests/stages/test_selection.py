from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from dgasr.errors import ConfigError, Reason
from dgasr.stages.selection import Selection

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_sources_alone_cover_everything():
    assert Selection(sources=("/archive",)).covers("/archive/a.wav", NOON)


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


def test_nothing_is_taken_again_unasked():
    selection = Selection(sources=("/a",)).starting_at(NOON)
    assert not selection.redoes
    assert not selection.takes_again(NOON - HOUR, Reason.TRUNCATED)


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
