"""The same views over a lake of invented speech, large enough to have every case, whose answers are known before."""

from pathlib import Path

import pytest

from benchmarks.archive import (
    GPU_HOUR_PRICE,
    MISHEARD,
    OTHER_RECIPE_ID,
    RECIPE_ID,
    WORKERS,
    Archive,
    ArchiveConfig,
    write_archive,
)
from dgasr.lake.upkeep import compact
from dgasr.lake.views import connect
from dgasr.records import seconds

CONFIG = ArchiveConfig(num_days=2, shards_per_day=2, recordings_per_shard=60, segments_per_recording=5, num_types=300)


@pytest.fixture(scope="module", params=["committed", "compacted"])
def generated(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """Answers to questions about a generated lake, as it was committed and compacted, and what was put into it."""
    lake = str(tmp_path_factory.mktemp("generated") / "lake")
    archive = write_archive(lake, CONFIG)
    if request.param == "compacted":
        compact(lake)
    with connect(lake) as connection:
        yield lambda query: connection.execute(query).fetchall(), archive


def test_the_same_seed_invents_the_same_speech(generated, tmp_path: Path):
    assert write_archive(str(tmp_path / "again"), CONFIG) == generated[1]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("select count(*) from recordings where recipe_id = '5eed'", lambda a: a.num_recordings),
        ("select count(*) from recordings_latest where recipe_id = '5eed'", lambda a: a.num_recordings),
        ("select count(*) from latest_transcripts", lambda a: a.num_recordings),
        ("select count(*) from segments_latest", lambda a: a.num_segments),
        ("select count(*) from segments where recipe_id = '5eed'", lambda a: a.num_segments),
        ("select count(*) from words", lambda a: a.num_words),
        ("select sum(num_words) from latest_transcripts", lambda a: a.num_words),
        ("select sum(num_words) from confidence_histogram", lambda a: a.num_words),
        ("select sum(num)::bigint from vocabulary", lambda a: a.num_words),
        ("select sum(num_before + num_since)::bigint from vocabulary_drift('2026-01-02')", lambda a: a.num_words),
        ("select count(*) from rejections", lambda a: a.num_rejected),
        ("select sum(num_recordings) from rejections_by_reason", lambda a: a.num_rejected),
        ("select count(*) from suspicious_segments", lambda a: a.num_flagged),
        ("select count(*) from heard_nothing", lambda a: 0),
        ("select sum(num_segments) from flag_counts", lambda a: a.num_flagged),
        ("select count(*) from phrase('harbour pilot ahoy')", lambda a: a.num_phrases),
        ("select count(*) from search('ahoy')", lambda a: a.num_phrases),
        ("select num from vocabulary where word = 'harbour'", lambda a: a.num_phrases),
        ("select sum(num_copies - 1) from duplicate_audio", lambda a: a.num_twins),
        ("select sum(num_different) from compare_recipes('0dd5', '5eed')", lambda a: a.num_misheard),
        ("select sum(num_recordings) from speech_per_day", lambda a: a.num_recordings),
        ("select sum(num_recordings) from speech_per_prefix(3)", lambda a: a.num_recordings),
        ("select sum(num_recordings) from throughput", lambda a: a.num_recordings - a.num_rejected),
        ("select sum(num_latest) from recipes", lambda a: a.num_recordings),
        ("select count(distinct uri) from dropped_intervals", lambda a: a.num_recordings - a.num_rejected),
    ],
)
def test_a_view_finds_what_was_put_in(generated, query: str, answer):
    ask, archive = generated
    assert ask(query) == [(answer(archive),)]


def test_the_phrase_is_said_when_its_recording_begins(generated):
    ask, _ = generated
    uri = "s3://archive/desk0/2026/01/02/00100.flac"
    ((start_s, end_s),) = ask(f"select start_s, end_s from phrase('harbour pilot ahoy') where uri = '{uri}'")
    middle_s = (start_s + end_s) / 2
    assert ask(f"select word from transcript_at('{uri}', {middle_s})") == [("pilot",)]


def test_coverage_accounts_for_every_sample(generated: tuple[object, Archive]):
    ask, archive = generated
    ((decoded_s, accounted_s),) = ask("select sum(decoded_s), sum(speech_s + dropped_s) from coverage")
    assert (decoded_s, accounted_s) == pytest.approx((seconds(archive.num_samples), decoded_s))


def test_two_recipes_differ_in_the_words_that_were_misheard(generated):
    ask, archive = generated
    difference = f"select second_word from word_differences('{RECIPE_ID}', '{OTHER_RECIPE_ID}')"
    assert ask(f"select second_word, count(*) from ({difference}) group by all") == [(MISHEARD, archive.num_misheard)]


def test_workers_are_told_apart(generated):
    ask, archive = generated
    hours = seconds(archive.num_samples) / 3600
    found = ask("select worker, audio_h, rtfx, busy_share from throughput_per_worker")
    assert [row[0] for row in found] == sorted(WORKERS, key=WORKERS.get, reverse=True)
    assert [tuple(row[1:]) for row in found] == [pytest.approx((hours * s, 500.0, s)) for s in WORKERS.values()]


def test_an_hour_costs_what_its_decoding_costs(generated):
    assert generated[0]("select distinct round(cost_per_audio_hour, 9) from cost_per_hour") == [(GPU_HOUR_PRICE / 500,)]


def test_the_newest_evaluation_of_a_recipe_counts(generated):
    assert generated[0]("select recipe_id, wer, substituted from accuracy") == [
        (RECIPE_ID, 0.1, 0.1),
        (OTHER_RECIPE_ID, 0.3, 0.3),
    ]


def test_objects_that_came_back_are_not_deleted(generated):
    assert generated[0]("select uri from deleted_objects") == [("s3://archive/desk0/2026/01/01/00000.flac",)]


def test_a_word_of_the_other_recipe_is_found_where_it_is_preferred(generated, tmp_path: Path):
    ask, archive = generated
    assert ask(f"select count(*) from phrase('{MISHEARD}')") == [(0,)]
    ask(f"set variable preferred_recipe = '{OTHER_RECIPE_ID}'")
    try:
        assert ask(f"select count(*) from phrase('{MISHEARD}')") == [(archive.num_misheard,)]
    finally:
        ask("set variable preferred_recipe = ''")
