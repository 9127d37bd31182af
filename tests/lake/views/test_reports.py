"""Figures of an archive: coverage, quality, speed, cost, vocabulary, with answers computed by hand."""

import math
from datetime import date, timedelta

import pytest

from dgasr.lake.ledger import append_rows, commit_shard
from dgasr.lake.rows import evaluation_row
from tests.lake.reading import ask

FIGURES = {
    "path": "diffusion", "steps": 8, "normalizer": "basic", "metric": "wer", "wer": 0.1, "cer": 0.05,
    "num_utterances": 5, "num_flagged": 0, "failures": [], "audio_s": 40.0, "wall_s": 2.0, "rtfx": 20.0,
}  # fmt: skip
"""What an evaluation found, but for its edits."""


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (
            'select "date", num_recordings, num_rejected, audio_h * 3600, speech_h * 3600, num_words, '
            "round(words_per_minute, 2) from speech_per_day",
            [(date(2026, 1, 2), 3, 1, 12.0, 9.5, 6, 37.89)],
        ),
        ("select prefix, num_recordings from speech_per_prefix(0)", [("/", 3)]),
        ("select prefix, num_recordings from speech_per_prefix(7)", [("/a/", 3)]),
        (
            "select flag, num_segments, duration_s, round(mean_confidence, 2) from flag_counts",
            [("repetition", 1, 2.0, 0.55)],
        ),
        ("select word, num from vocabulary", [("two", 3), ("forty", 1), ("one", 1), ("three", 1)]),
        ("select per_million from vocabulary where word = 'two'", [(500_000.0,)]),
        (
            "select uri, declared_s, decoded_s, speech_s, dropped_s, dropped_as, missing_s, speech_share from coverage",
            [
                ("/a/one.flac", 10.0, 10.0, 8.0, 2.0, "silence 2.00 s", 0.0, 0.8),
                ("/a/three.txt", None, 0.0, 0.0, 0.0, "", 0.0, None),
                ("/a/two.mp3", 5.0, 2.0, 1.5, 0.5, "silence 0.50 s", 3.0, 0.75),
            ],
        ),
        (
            "select uri, start_s, end_s, duration_s, reason from dropped_intervals",
            [("/a/one.flac", 6.0, 8.0, 2.0, "silence"), ("/a/two.mp3", 1.5, 2.0, 0.5, "silence")],
        ),
        (
            "select reason, status, uri, message from rejections",
            [
                ("truncated", "partial", "/a/two.mp3", "/a/two.mp3: ends after 2 s of 5 s."),
                ("unknown_format", "rejected", "/a/three.txt", "/a/three.txt: no decoder knows it."),
            ],
        ),
        (
            "select * from rejections_by_reason",
            [
                ("truncated", "partial", 1, 1000, "/a/two.mp3"),
                ("unknown_format", "rejected", 1, 1000, "/a/three.txt"),
            ],
        ),
        (
            "select device, num_recordings, num_rejected, audio_h * 3600, rtfx, peak_memory_mb from throughput",
            [("cpu", 3, 1, 12.0, 4.0, 500.0)],
        ),
        (
            "select uri, start_s, flags, text from suspicious_segments",
            [("/a/one.flac", 8.0, ["repetition"], "forty two")],
        ),
        (
            "select recipe_id, model, num_recordings, num_latest, audio_h * 3600, num_words from recipes",
            [("f00d", None, 3, 3, 12.0, 6)],
        ),
        (
            "select uri, status, text, round(confidence, 4), num_flagged, num_words from latest_transcripts",
            [
                ("/a/one.flac", "ok", "One two, two forty two", 0.8575, 1, 5),
                ("/a/three.txt", "rejected", "", None, 0, 0),
                ("/a/two.mp3", "partial", "three", 1.0, 0, 1),
            ],
        ),
        (
            "select uri, recipe_id, status from recordings_latest order by uri",
            [("/a/one.flac", "f00d", "ok"), ("/a/three.txt", "f00d", "rejected"), ("/a/two.mp3", "f00d", "partial")],
        ),
        (
            "select uri, segment_index, text from segments_latest where text <> '' order by all",
            [("/a/one.flac", 0, "One two, two"), ("/a/one.flac", 2, "forty two"), ("/a/two.mp3", 0, "three")],
        ),
        (
            "select word, segment_index, word_index, start_s, end_s from words where uri = '/a/one.flac'",
            [
                ("One", 0, 0, 0.0, 2.0),
                ("two,", 0, 1, 2.0, 4.0),
                ("two", 0, 2, 4.0, 6.0),
                ("forty", 2, 0, 8.0, 9.0),
                ("two", 2, 1, 9.0, 10.0),
            ],
        ),
    ],
)
def test_a_view_of_three_recordings_has_the_answer_that_was_computed_by_hand(small, query, answer):
    assert small(query) == answer


def test_a_price_without_decode_runs_is_paid_for_the_run_itself(empty_lake, make_run):
    append_rows(empty_lake, "runs", [make_run(audio_s=7200.0, wall_s=1800.0, gpu_hour_price=2.0)])
    columns = "audio_h, device_h, cost, cost_per_audio_hour"
    assert ask(empty_lake, f"select {columns} from cost_per_hour") == [(2.0, 0.5, 1.0, 0.5)]


def test_equal_audio_is_found_under_two_names(empty_lake, make_shard):
    for number, digest in enumerate(["aa", "aa", "bb", None]):
        shard = make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac")
        shard.recordings[0]["audio_digest"] = digest
        commit_shard(empty_lake, shard)
    assert ask(empty_lake, "select num_copies, decoded_s, copies_s, uris from duplicate_audio") == [
        (2, 10.0, 10.0, ["/a/0.flac", "/a/1.flac"])
    ]


def test_speech_without_a_word_is_shown_with_its_channels_and_tracks(empty_lake, make_shard):
    for number, text in enumerate(["", "one"]):
        pieces = [("speech", 0, 4, text, 1.0, ())]
        commit_shard(empty_lake, make_shard(shard_id=f"s{number}", uri=f"/{number}", pieces=pieces))
    asked = "select uri, speech_s, channels_differ, audio_track, num_audio_tracks, cancelled_s from heard_nothing"
    assert ask(empty_lake, asked) == [("/0", 4.0, False, 0, 1, 0.0)]


def test_what_is_quiet_and_has_no_word_is_shown_with_its_level(empty_lake, make_shard):
    for number, peak_dbfs in enumerate([-62.0, -20.0, None]):
        shard = make_shard(shard_id=f"s{number}", uri=f"/{number}", pieces=[("silence", 0, 4, "", None, ())])
        shard.recordings[0]["peak_dbfs"] = peak_dbfs
        commit_shard(empty_lake, shard)
    assert ask(empty_lake, "select uri, speech_s, peak_dbfs from heard_nothing") == [("/0", 0.0, -62.0)]


def test_the_confidence_histogram_counts_every_word_once(small):
    histogram = {round(row[0], 1): row[2] for row in small("select * from confidence_histogram")}
    assert histogram == {0.0: 0, 0.1: 0, 0.2: 0, 0.3: 0, 0.4: 0, 0.5: 2, 0.6: 0, 0.7: 0, 0.8: 0, 0.9: 4}


def test_the_vocabulary_drifts_where_words_come_and_go(empty_lake, make_shard, day):
    for number, text in enumerate(["one one one two", "one two two two"]):
        modified_at = day + timedelta(days=number)
        pieces = [("speech", 0, 4, text, 1.0, ())]
        commit_shard(
            empty_lake,
            make_shard(shard_id=f"s{number}", uri=f"/{number}", modified_at=modified_at, pieces=pieces),
        )
    surprise = 2 * (3 * math.log(3 / 2) + math.log(1 / 2))  # 2 of each were expected on either side
    columns = "word, num_before, num_since, per_million_since, log_ratio, surprise"
    assert ask(empty_lake, f"select {columns} from vocabulary_drift(date '{(day + timedelta(days=1)).date()}')") == [
        ("one", 3, 1, 250_000.0, pytest.approx(math.log2(1.5 / 3.5)), pytest.approx(surprise)),
        ("two", 1, 3, 750_000.0, pytest.approx(math.log2(3.5 / 1.5)), pytest.approx(surprise)),
    ]


def test_the_runs_of_a_worker_add_up(empty_lake, make_run):
    for number, (wall_s, busy_share) in enumerate([(10.0, 1.0), (30.0, 0.5)]):
        run = make_run(run_id=f"r{number}", stage="decode", worker="gpu-1:7", wall_s=wall_s, busy_share=busy_share)
        append_rows(empty_lake, "runs", [run | {"audio_s": 3600.0}])
    columns = "worker, stage, num_runs, audio_h, wall_s, rtfx, busy_share, peak_memory_mb"
    assert ask(empty_lake, f"select {columns} from throughput_per_worker") == [
        ("gpu-1:7", "decode", 2, 2.0, 40.0, 180.0, 0.625, 500.0)
    ]


def test_a_recipe_is_as_right_as_its_newest_evaluation(empty_lake, day):
    for number, substitutions in enumerate([4, 2]):
        edits = {"substitutions": substitutions, "deletions": 1, "insertions": 0, "reference_words": 10}
        row = evaluation_row(
            FIGURES | {"edits": edits, "wer": (substitutions + 1) / 10},
            run_id=f"e{number}",
            recipe_id="f00d",
            manifest="digits.jsonl",
            manifest_digest="00",
            started_at=day + timedelta(hours=number),
        )
        append_rows(empty_lake, "evaluations", [row])
    columns = "recipe_id, manifest, wer, substituted, deleted, inserted, num_utterances"
    assert ask(empty_lake, f"select {columns} from accuracy") == [("f00d", "digits.jsonl", 0.3, 0.2, 0.1, 0.0, 5)]
