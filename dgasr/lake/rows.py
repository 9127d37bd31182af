"""Records in, rows of the lake out. The only place where sample positions become seconds for good."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dgasr.errors import Reason
from dgasr.lake.schema import RUNS, PresenceEvent, RecordingStatus
from dgasr.records import AudioReport, Recording, SegmentTranscript, Word, seconds

Row = dict[str, Any]
"""One row, keys named as in `dgasr.lake.schema`, without the partition columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRows:
    """All rows of one shard, to be committed together."""

    recipe_id: str
    shard_id: str
    run_id: str
    recordings: Sequence[Row]
    """One for every recording of the shard, rejected ones too."""
    segments: Sequence[Row]
    """Every segment of these recordings, in any order."""


OF_REPORT = (
    "container", "codec", "source_sample_rate_hz", "num_channels", "declared_s", "audio_track", "num_audio_tracks",
    "cancelled_s", "channels_differ", "sample_correction", "peak_dbfs",
    "num_transcripts",
)  # fmt: skip
"""Columns of `recordings` that say what `AudioReport` says, under the same names."""


OF_SEGMENT = ("recording_id", "segment_index", "audio_track", "channel", "kind", "cut")
"""Columns of `segments` that say what `Segment` says, under the same names."""


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
    """Make the row of one recording from its report and all of its segments, silent ones too.

    Of a rejected recording nothing counts as decoded, whatever was read before the refusal. `take` is 0, or which
    redoing of the recording this is; readers see the highest.
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
        **{name: getattr(report, name) if report else None for name in OF_REPORT},
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
    }


def segment_row(transcript: SegmentTranscript, *, shard_id: str) -> Row:
    """Make the row of one segment, spoken or not."""
    segment = transcript.segment
    same = ("text", "language", "timing_source", "confidence", "num_steps", "canvas_tokens")
    return {
        **{name: getattr(segment, name) for name in OF_SEGMENT},
        **{name: getattr(transcript, name) for name in same},
        "shard_id": shard_id,
        "start_s": seconds(segment.start_sample),
        "end_s": seconds(segment.end_sample),
        "words": [_word(word) for word in transcript.words],
        "flags": list(transcript.flags),
    }


def run_row(*, audio_s: float, wall_s: float, **columns: Any) -> Row:
    """Make the row of one execution from the audio that it committed, the time it took, and the other columns.

    Columns that not every run has are null where they are left out.
    """
    optional: Row = {field.name: None for field in RUNS if field.nullable}
    rtfx = audio_s / wall_s if wall_s > 0 else 0.0
    return optional | columns | {"audio_s": audio_s, "wall_s": wall_s, "rtfx": rtfx}


def evaluation_row(
    figures: Mapping[str, Any],
    *,
    run_id: str,
    recipe_id: str,
    manifest: str,
    manifest_digest: str,
    started_at: datetime,
) -> Row:
    """Make the row of one evaluation from what `Evaluation.to_json` says; each has a `run_id` of its own."""
    same = ("path", "normalizer", "metric", "wer", "cer", "num_utterances", "num_flagged", "audio_s", "wall_s", "rtfx")
    edits = ("substitutions", "deletions", "insertions", "reference_words")
    return {
        **{name: figures[name] for name in same},
        **{f"num_{name}": figures["edits"][name] for name in edits},
        "run_id": run_id,
        "recipe_id": recipe_id,
        "manifest": manifest,
        "manifest_digest": manifest_digest,
        "max_steps": figures["steps"],
        "num_failures": len(figures["failures"]),
        "started_at": started_at,
        "figures": json.dumps(figures, ensure_ascii=False),
    }


def presence_rows(
    found: Iterable[tuple[str, str | None]], event: PresenceEvent, *, noticed_at: datetime, run_id: str
) -> list[Row]:
    """Make the rows of objects that are gone or back: URI and id of the version that lies there, `None` for none."""
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
