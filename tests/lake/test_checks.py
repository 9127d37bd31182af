"""What contradicts itself is never committed."""

from dataclasses import replace

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.checks import check_shard

RECORDING_FAULTS = [
    ({"status": "fine"}, "recordings.status is 'fine', not one of ok, partial, rejected"),
    ({"status": "partial", "reason": "bad luck", "message": "m"}, "recordings.reason is 'bad luck'"),
    ({"status": "partial"}, "is partial with reason None"),
    ({"reason": "truncated", "message": "m"}, "is ok with reason truncated"),
    ({"etag": None}, "recordings.etag is null"),
    ({"surprise": 1}, "missing or unknown columns"),
    ({"num_segments": 2}, "has 3 segments and says num_segments=2"),
    ({"num_words": 4}, "says num_words=4"),
    ({"decoded_s": 10.5}, "a segment ends at sample 160000, and the next"),
    ({"speech_s": 8.5}, "speech_s \\+ dropped_s is not decoded_s"),
    ({"status": "rejected", "reason": "truncated", "message": "m"}, "is rejected, but 3 segments"),
    ({"shard_id": "s9"}, "a row of shard s9"),
]

SEGMENT_FAULTS = [
    ({"start_s": 6.5}, "a segment ends at sample 96000, and the next .* is at 104000"),
    ({"end_s": 6.0}, "a segment ends at sample 96000, and the next .* is at 128000"),
    ({"segment_index": 5}, "segment_index"),
    ({"kind": "music"}, "segments.kind is 'music'"),
    ({"recording_id": "f" * 32}, "has 2 segments"),
    ({"confidence": 1.5}, "a confidence outside"),
    ({"text": None}, "segments.text is null"),
    ({"words": [{"word": "x", "start_s": 5.9, "end_s": 6.5, "confidence": 1.0}]}, "'x' is out of order or outside"),
    ({"words": [{"word": "x", "start_s": 7.0, "end_s": 6.5, "confidence": 1.0}]}, "'x' is out of order or outside"),
    ({"words": [{"word": "x", "start_s": 7.0, "end_s": 7.5, "confidence": 2.0}]}, "a confidence outside"),
]


def test_a_sound_shard_passes(three_recordings):
    check_shard(three_recordings)


@pytest.mark.parametrize(("change", "message"), RECORDING_FAULTS)
def test_a_recording_that_contradicts_itself_is_refused(make_shard, change, message):
    rows = make_shard()
    rows.recordings[0].update(change)
    with pytest.raises(IntegrityError, match=message):
        check_shard(rows)


@pytest.mark.parametrize(("change", "message"), SEGMENT_FAULTS)
def test_a_segment_that_contradicts_the_others_is_refused(make_shard, change, message):
    rows = make_shard()
    rows.segments[1].update(change)
    with pytest.raises(IntegrityError, match=message):
        check_shard(rows)


def test_a_recording_stands_in_its_shard_once(make_shard):
    rows = make_shard()
    with pytest.raises(IntegrityError, match="stands in it 2 times"):
        check_shard(replace(rows, recordings=[*rows.recordings, *rows.recordings]))


def test_segments_of_a_stranger_are_refused(make_shard):
    rows = make_shard()
    with pytest.raises(IntegrityError, match="which is not in the shard"):
        check_shard(replace(rows, segments=[*rows.segments, rows.segments[0] | {"recording_id": "f" * 32}]))


def test_times_of_ten_hours_keep_their_samples(make_shard):
    thirds = [("speech", 36_000 / 3 * i, 36_000 / 3 * (i + 1) - 1 / 16_000, "x", 1.0, ()) for i in range(3)]
    edges = [("silence", 36_000 / 3 * (i + 1) - 1 / 16_000, 36_000 / 3 * (i + 1), "", None, ()) for i in range(3)]
    check_shard(make_shard(pieces=[piece for pair in zip(thirds, edges, strict=True) for piece in pair]))
