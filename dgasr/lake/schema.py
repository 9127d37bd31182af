"""The tables of the lake, declared once: names, types, nullability, units. Knows no storage, no record and no query.

Recordings and segments are two kinds of row of one Delta table, `transcripts`, so that both become visible in one
commit; readers see them as two views. Partition columns live in the path (`recipe_id=…/date=…/row_kind=…`).
"""

from typing import Literal, get_args

import pyarrow as pa

SCHEMA_VERSION = 2
"""Rises when a reader of the previous version would misread the rows; a new nullable column does not raise it. 1 was
the format before Delta Lake (docs/decisions/0023-shell-and-upgrade.md)."""

RecordingStatus = Literal["ok", "partial", "rejected"]
"""`ok`: all of the audio; `partial`: what could be decoded of it; `rejected`: nothing, and `reason` says why."""

STATUSES: tuple[str, ...] = get_args(RecordingStatus)

PresenceEvent = Literal["deleted", "returned"]
"""What a run noticed of an object that was there before."""


def _column(name: str, kind: pa.DataType, comment: str, *, unit: str = "", nullable: bool = False) -> pa.Field:
    """Declare a column; comment and unit travel in the file."""
    metadata = {"comment": comment} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


UTC = pa.timestamp("us", tz="UTC")

WORD = pa.struct(
    [
        _column("word", pa.string(), "the word as it was decoded"),
        _column("start_s", pa.float64(), "start, from the recording's first sample", unit="s"),
        _column("end_s", pa.float64(), "end, exclusive, from the recording's first sample", unit="s"),
        _column("confidence", pa.float32(), "probability that the word is right, in [0, 1]"),
    ]
)

RECORDINGS = pa.schema(
    [
        _column("recording_id", pa.string(), "identity of this version of the object: a hash over uri and etag"),
        _column("uri", pa.string(), "where the audio lies"),
        _column("etag", pa.string(), "version of the object at this uri, as the store names it"),
        _column("size_bytes", pa.int64(), "size of the object", unit="byte"),
        _column("modified_at", UTC, "when the object was last written"),
        _column("shard_id", pa.string(), "the shard that committed this row"),
        _column("run_id", pa.string(), "the run that made this row"),
        _column("status", pa.string(), " | ".join(STATUSES)),
        _column("reason", pa.string(), "why not ok, of dgasr.errors.Reason; null when ok", nullable=True),
        _column("message", pa.string(), "what, where, what now; null when ok", nullable=True),
        _column("container", pa.string(), "file format that the content shows; null when unreadable", nullable=True),
        _column("codec", pa.string(), "audio codec; null when unreadable", nullable=True),
        _column("source_sample_rate_hz", pa.int32(), "sample rate before resampling", unit="Hz", nullable=True),
        _column("num_channels", pa.int32(), "channels before mixing down", nullable=True),
        _column("declared_s", pa.float64(), "duration in the header; null where none stands", unit="s", nullable=True),
        _column("decoded_s", pa.float64(), "duration that was decoded, of one of num_transcripts", unit="s"),
        _column("speech_s", pa.float64(), "duration of segments given to the decoder, of all transcripts", unit="s"),
        _column("dropped_s", pa.float64(), "duration of the segments that were not, likewise", unit="s"),
        _column("num_segments", pa.int32(), "rows of this recording in segments"),
        _column("num_words", pa.int32(), "words of this recording in segments"),
        _column("language", pa.string(), "language of most of the speech; null without speech", nullable=True),
        _column("transcribed_at", UTC, "when the row was made"),
        _column("audio_digest", pa.string(), "hash of the decoded audio; equal for equal audio", nullable=True),
        _column("read_s", pa.float64(), "time it took to read the recording", unit="s", nullable=True),
        _column("take", pa.int32(), "how often it was asked for again; the highest counts; null is 0", nullable=True),
        _column("audio_track", pa.int32(), "audio track of the container, from 0; null where all are", nullable=True),
        _column("num_audio_tracks", pa.int32(), "audio tracks in the container", nullable=True),
        _column(
            "cancelled_s",
            pa.float64(),
            "time in which the channels' mean would have cancelled the sound, so that some were turned",
            unit="s",
            nullable=True,
        ),
        _column("channels_differ", pa.bool_(), "different voices are on the mixed channels", nullable=True),
        _column("num_transcripts", pa.int32(), "tracks and channels transcribed each; null is 1", nullable=True),
        _column("peak_dbfs", pa.float64(), "loudest sample against full scale; null: digital silence", nullable=True),
        _column("sample_correction", pa.string(), "what was put right of its samples; null: nothing", nullable=True),
    ]
)

SEGMENTS = pa.schema(
    [
        _column("recording_id", pa.string(), "the recording this is a piece of"),
        _column("shard_id", pa.string(), "the shard that committed this row"),
        _column("segment_index", pa.int32(), "position in the recording, from 0"),
        _column("channel", pa.int32(), "channel of the recording, from 0; 0 for the mix of all too"),
        _column("start_s", pa.float64(), "start, from the recording's first sample", unit="s"),
        _column("end_s", pa.float64(), "end, exclusive", unit="s"),
        _column("kind", pa.string(), "speech: was decoded; anything else: why it was not"),
        _column("cut", pa.string(), "why it ends here: silence | forced | end"),
        _column("text", pa.string(), "what was said; empty where nothing was"),
        _column("language", pa.string(), "language that the text was decoded as"),
        _column("words", pa.list_(pa.field("element", WORD, nullable=False)), "the words of the text, in order"),
        _column("timing_source", pa.string(), "where word times come from: ctc | interpolated | even | none"),
        _column("confidence", pa.float32(), "probability that the text is right; null when not decoded", nullable=True),
        _column("flags", pa.list_(pa.field("element", pa.string(), nullable=False)), "reasons to doubt the segment"),
        _column("num_steps", pa.int32(), "denoising steps spent, 0 when not decoded"),
        _column("canvas_tokens", pa.int32(), "length of the canvas that held the text", unit="token"),
        _column("audio_track", pa.int32(), "audio track of the container, from 0; null in old rows", nullable=True),
    ]
)

RUNS = pa.schema(
    [
        _column("run_id", pa.string(), "identity of the execution"),
        _column("recipe_id", pa.string(), "fingerprint of all that changes text or times"),
        _column("recipe", pa.string(), "the recipe as JSON"),
        _column("versions", pa.string(), "versions of Python and the libraries as JSON"),
        _column("source", pa.string(), "what was asked to be transcribed"),
        _column("device", pa.string(), "device the model ran on"),
        _column("started_at", UTC, "when the run began"),
        _column("num_recordings", pa.int64(), "recordings committed by this run"),
        _column("num_partial", pa.int64(), "of these, partial"),
        _column("num_rejected", pa.int64(), "of these, rejected"),
        _column("num_segments", pa.int64(), "segments committed by this run"),
        _column("num_words", pa.int64(), "words committed by this run"),
        _column("audio_s", pa.float64(), "decoded audio committed by this run", unit="s"),
        _column("wall_s", pa.float64(), "time from the run's begin to its end", unit="s"),
        _column("rtfx", pa.float64(), "audio_s / wall_s"),
        _column("peak_memory_bytes", pa.int64(), "largest resident memory of the run's process", unit="byte"),
        _column("stage", pa.string(), "prepare | decode: a child run; null: the whole run", nullable=True),
        _column("parent_run_id", pa.string(), "the whole run that a child belongs to", nullable=True),
        _column("worker", pa.string(), "process that did it, host:pid; null where there were several", nullable=True),
        _column("busy_share", pa.float64(), "share of its time in which the model had work, in [0, 1]", nullable=True),
        _column("num_attempts", pa.int32(), "child runs that were started for it, dead ones too", nullable=True),
        _column("gpu_hour_price", pa.float64(), "what an hour of its device was said to cost", nullable=True),
    ]
)

EVALUATIONS = pa.schema(
    [
        _column("run_id", pa.string(), "identity of the evaluation"),
        _column("recipe_id", pa.string(), "the recipe that was scored"),
        _column("manifest", pa.string(), "what it was scored on"),
        _column("manifest_digest", pa.string(), "hash of the manifest; figures compare only where it is equal"),
        _column("path", pa.string(), "how the text was found: diffusion; in older rows also ctc | ar"),
        _column("max_steps", pa.int32(), "denoising steps allowed a canvas"),
        _column("normalizer", pa.string(), "what was made equal before counting: whisper | basic"),
        _column("metric", pa.string(), "what the evaluation leads with: wer | cer"),
        _column("wer", pa.float64(), "word errors / words of the reference; null without words", nullable=True),
        _column("cer", pa.float64(), "character errors / characters of the reference; null without", nullable=True),
        _column("num_substitutions", pa.int64(), "words that were recognised as others"),
        _column("num_deletions", pa.int64(), "words that were missed"),
        _column("num_insertions", pa.int64(), "words that nobody said"),
        _column("num_reference_words", pa.int64(), "words of the reference"),
        _column("num_utterances", pa.int64(), "utterances of the manifest"),
        _column("num_flagged", pa.int64(), "of these, with a reason to doubt them"),
        _column("num_failures", pa.int64(), "of these, that could not be read as a whole"),
        _column("audio_s", pa.float64(), "audio that was decoded", unit="s"),
        _column("wall_s", pa.float64(), "from the first byte of audio to the last word", unit="s"),
        _column("rtfx", pa.float64(), "audio_s / wall_s"),
        _column("started_at", UTC, "when the evaluation began"),
        _column(
            "figures", pa.string(), "all figures as JSON, by set and language too; null in old rows", nullable=True
        ),
    ]
)

PRESENCE = pa.schema(
    [
        _column("uri", pa.string(), "where the audio lay"),
        _column("recording_id", pa.string(), "version that lies there again; null where none does", nullable=True),
        _column("event", pa.string(), "deleted: nothing lies there any more | returned: something does again"),
        _column("noticed_at", UTC, "when a run noticed it"),
        _column("run_id", pa.string(), "the run that noticed it"),
    ]
)

RECIPE_ID = _column("recipe_id", pa.string(), "fingerprint of all that changes text or times; partition column")
DATE = _column("date", pa.date32(), "UTC date of modified_at (else of started_at, noticed_at); partition column")
ROW_KIND = _column("row_kind", pa.string(), "recording | segment; partition column")

VIEWS: dict[str, pa.Schema] = {
    "recordings": pa.schema([*RECORDINGS, RECIPE_ID, DATE]),
    "segments": pa.schema([*SEGMENTS, RECIPE_ID, DATE]),
}
"""What readers see of the table `transcripts`, by kind of row."""

ROW_KINDS = {"recordings": "recording", "segments": "segment"}
"""Value of `row_kind` in the rows of each view."""


def _transcripts() -> pa.Schema:
    """Return the columns of both kinds of row; each is null where it is the other kind's alone."""
    fields = {field.name: field for field in (*SEGMENTS, *RECORDINGS)}
    in_both = set(RECORDINGS.names) & set(SEGMENTS.names) - {"language", "audio_track"}
    return pa.schema([field.with_nullable(name not in in_both) for name, field in fields.items()])


TABLES: dict[str, pa.Schema] = {
    "transcripts": _transcripts(),
    "runs": RUNS,
    "evaluations": EVALUATIONS,
    "presence": PRESENCE,
}
"""The Delta tables of a lake, without their partition columns. All but `transcripts` are only appended to."""

PARTITIONS: dict[str, tuple[pa.Field, ...]] = {
    "transcripts": (RECIPE_ID, DATE, ROW_KIND),
    "runs": (DATE,),
    "evaluations": (DATE,),
    "presence": (DATE,),
}
"""Columns that are read from a file's path, by table, in the order in which they stand in it."""


def table_schema(table: str) -> pa.Schema:
    """Return the columns of a table or view as readers see them: those of the file, then those of the path."""
    return VIEWS[table] if table in VIEWS else pa.schema([*TABLES[table], *PARTITIONS[table]])
