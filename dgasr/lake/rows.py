"""Records in, rows of the lake out. The only place where sample positions become seconds for good."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dgasr.errors import Reason
from dgasr.lake.schema import PresenceEvent, RecordingStatus, RunStage
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
    audio_digest: str | None = None,
    read_s: float | None = None,
    take: int = 0,
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
        audio_digest: hash of the decoded audio, hex; `None` where none was decoded.
        read_s: time it took to read it, s.
        take: 0, or which redoing of the recording this is; readers see the highest.

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
        "audio_digest": audio_digest,
        "read_s": read_s,
        "take": take,
        "audio_track": report.audio_track if report else None,
        "num_audio_tracks": report.num_audio_tracks if report else None,
        "cancelled_s": report.cancelled_s if report else None,
        "channels_differ": report.channels_differ if report else None,
        "num_transcripts": report.num_transcripts if report else None,
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
        "audio_track": segment.audio_track,
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
    stage: RunStage | None = None,
    parent_run_id: str | None = None,
    worker: str | None = None,
    busy_share: float | None = None,
    num_attempts: int | None = None,
    gpu_hour_price: float | None = None,
) -> Row:
    """Make the row of one execution.

    Args:
        run_id: the execution; a child has a name of its own.
        recipe_id: the recipe it followed.
        recipe_json: that recipe.
        versions_json: versions of Python and the libraries.
        source: what was asked for.
        device: where the model ran.
        started_at: when it began, with a time zone.
        recordings: what it committed, counted by status.
        num_segments: segments it committed.
        num_words: words it committed.
        audio_s: audio it committed, s.
        wall_s: time it took, s.
        peak_memory_bytes: largest resident memory of its process.
        stage: stage of a child run; `None` for the whole run.
        parent_run_id: the whole run that a child belongs to.
        worker: process that did it, `host:pid`.
        busy_share: share of the time in which the model had work, in [0, 1].
        num_attempts: child runs that were started for it.
        gpu_hour_price: what an hour of its device costs, in whatever currency the run was told.
    """
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
        "stage": stage,
        "parent_run_id": parent_run_id,
        "worker": worker,
        "busy_share": busy_share,
        "num_attempts": num_attempts,
        "gpu_hour_price": gpu_hour_price,
    }


def evaluation_row(
    figures: Mapping[str, Any],
    *,
    run_id: str,
    recipe_id: str,
    manifest: str,
    manifest_digest: str,
    started_at: datetime,
) -> Row:
    """Make the row of one evaluation.

    Args:
        figures: what `Evaluation.to_json` says.
        run_id: the evaluation; each has a name of its own.
        recipe_id: the recipe that was scored.
        manifest: what it was scored on.
        manifest_digest: hash of the manifest's bytes, hex.
        started_at: when it began, with a time zone.
    """
    edits = figures["edits"]
    return {
        "run_id": run_id,
        "recipe_id": recipe_id,
        "manifest": manifest,
        "manifest_digest": manifest_digest,
        "path": figures["path"],
        "max_steps": figures["steps"],
        "normalizer": figures["normalizer"],
        "metric": figures["metric"],
        "wer": figures["wer"],
        "cer": figures["cer"],
        "num_substitutions": edits["substitutions"],
        "num_deletions": edits["deletions"],
        "num_insertions": edits["insertions"],
        "num_reference_words": edits["reference_words"],
        "num_utterances": figures["num_utterances"],
        "num_flagged": figures["num_flagged"],
        "num_failures": len(figures["failures"]),
        "audio_s": figures["audio_s"],
        "wall_s": figures["wall_s"],
        "rtfx": figures["rtfx"],
        "started_at": started_at,
        "figures": json.dumps(figures, ensure_ascii=False),
    }


def presence_rows(
    found: Iterable[tuple[str, str | None]], event: PresenceEvent, *, noticed_at: datetime, run_id: str
) -> list[Row]:
    """Make the rows of what a run noticed: objects that are gone, or that are back.

    Args:
        found: URI of each object, with the id of the version that lies there, or `None` where none does.
        event: what was noticed of all of them.
        noticed_at: when, with a time zone.
        run_id: by which run.
    """
    return [
        {"uri": uri, "recording_id": recording_id, "event": event, "noticed_at": noticed_at, "run_id": run_id}
        for uri, recording_id in found
    ]


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
