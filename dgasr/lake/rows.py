"""Records in, rows of the lake out. The only place where sample positions become seconds for good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dgasr.errors import Reason
from dgasr.lake.schema import RecordingStatus
from dgasr.records import AudioReport, Recording, SegmentTranscript, Word, seconds

Row = dict[str, Any]
"""One row, keys named as in `dgasr.lake.schema`, without the partition columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRows:
    """All rows of one shard, to be committed together.

    Attributes:
        recipe_id: the recipe they were made with.
        shard_id: the shard; its recordings share one UTC date of `modified_at`.
        run_id: the run that made them.
        recordings: one row for every recording of the shard, rejected ones too.
        segments: every segment of these recordings, in any order.
    """

    recipe_id: str
    shard_id: str
    run_id: str
    recordings: Sequence[Row]
    segments: Sequence[Row]


def recording_row(
    recording: Recording,
    *,
    shard_id: str,
    run_id: str,
    transcribed_at: datetime,
    status: RecordingStatus,
    reason: Reason | None = None,
    message: str | None = None,
    report: AudioReport | None = None,
    transcripts: Sequence[SegmentTranscript] = (),
) -> Row:
    """Make the row of one recording.

    Args:
        recording: the version of the object.
        shard_id: the shard it is committed with.
        run_id: the run that transcribed it.
        transcribed_at: when that was, with a time zone.
        status: `ok`, `partial` or `rejected`.
        reason: why it is not `ok`.
        message: what, where, what now, where it is not `ok`.
        report: what the container claims against what was decoded; `None` where it could not be read.
        transcripts: all segments of the recording, silent ones too; none for a rejected one.

    Returns:
        A row of `recordings`. Of a rejected recording nothing counts as decoded, whatever was read before the refusal.
    """
    is_kept = report is not None and status != "rejected"
    speech = sum(t.segment.num_samples for t in transcripts if t.segment.kind == "speech")
    dropped = sum(t.segment.num_samples for t in transcripts if t.segment.kind != "speech")
    return {
        "recording_id": recording.recording_id,
        "uri": recording.uri,
        "etag": recording.etag,
        "size_bytes": recording.size_bytes,
        "modified_at": recording.modified_at,
        "shard_id": shard_id,
        "run_id": run_id,
        "status": status,
        "reason": None if reason is None else str(reason),
        "message": message,
        "container": report.container if report else None,
        "codec": report.codec if report else None,
        "source_sample_rate_hz": report.source_sample_rate_hz if report else None,
        "num_channels": report.num_channels if report else None,
        "declared_s": report.declared_s if report else None,
        "decoded_s": seconds(report.decoded_samples) if report and is_kept else 0.0,
        "speech_s": seconds(speech),
        "dropped_s": seconds(dropped),
        "num_segments": len(transcripts),
        "num_words": sum(len(t.words) for t in transcripts),
        "language": _main_language(transcripts),
        "transcribed_at": transcribed_at,
    }


def segment_row(transcript: SegmentTranscript, *, shard_id: str) -> Row:
    """Make the row of one segment, spoken or not."""
    segment = transcript.segment
    return {
        "recording_id": segment.recording_id,
        "shard_id": shard_id,
        "segment_index": segment.segment_index,
        "channel": segment.channel,
        "start_s": seconds(segment.start_sample),
        "end_s": seconds(segment.end_sample),
        "kind": segment.kind,
        "cut": segment.cut,
        "text": transcript.text,
        "language": transcript.language,
        "words": [_word(word) for word in transcript.words],
        "timing_source": transcript.timing_source,
        "confidence": transcript.confidence,
        "flags": list(transcript.flags),
        "num_steps": transcript.num_steps,
        "canvas_tokens": transcript.canvas_tokens,
    }


def run_row(
    *,
    run_id: str,
    recipe_id: str,
    recipe_json: str,
    versions_json: str,
    source: str,
    device: str,
    started_at: datetime,
    recordings: Mapping[RecordingStatus, int],
    num_segments: int,
    num_words: int,
    audio_s: float,
    wall_s: float,
    peak_memory_bytes: int,
) -> Row:
    """Make the row of one execution; `recordings` counts what it committed, by status."""
    return {
        "run_id": run_id,
        "recipe_id": recipe_id,
        "recipe": recipe_json,
        "versions": versions_json,
        "source": source,
        "device": device,
        "started_at": started_at,
        "num_recordings": sum(recordings.values()),
        "num_partial": recordings.get("partial", 0),
        "num_rejected": recordings.get("rejected", 0),
        "num_segments": num_segments,
        "num_words": num_words,
        "audio_s": audio_s,
        "wall_s": wall_s,
        "rtfx": audio_s / wall_s if wall_s > 0 else 0.0,
        "peak_memory_bytes": peak_memory_bytes,
    }


def _word(word: Word) -> Row:
    """Make one element of `segments.words`."""
    return {
        "word": word.word,
        "start_s": seconds(word.start_sample),
        "end_s": seconds(word.end_sample),
        "confidence": word.confidence,
    }


def _main_language(transcripts: Sequence[SegmentTranscript]) -> str | None:
    """Return the language that most of the speech is in, `None` without speech."""
    samples: dict[str, int] = {}
    for transcript in transcripts:
        if transcript.segment.kind == "speech":
            samples[transcript.language] = samples.get(transcript.language, 0) + transcript.segment.num_samples
    return max(sorted(samples), key=lambda language: samples[language]) if samples else None
