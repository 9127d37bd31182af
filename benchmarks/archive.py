"""A lake of invented speech, written as commits do, and the answers that must be found in it.

It is what `benchmarks.sql` asks. Parts are made from arrays: a million rows of Python objects would take an hour.
"""

from dataclasses import dataclass, fields, replace
from datetime import timedelta

import numpy as np
import pyarrow as pa

from benchmarks.invented import (
    FLAGGED_EVERY,
    TWIN_EVERY,
    Day,
    recording_row,
    rejected_row,
    say,
    segment_rows,
    spellings,
    vocabulary,
)
from dgasr.lake.ledger import append_rows, commit_transcripts
from dgasr.lake.rows import evaluation_row, presence_rows, run_row
from dgasr.lake.schema import RECORDINGS, ROW_KINDS, table_schema
from dgasr.records import seconds

RECIPE_ID = "5eed"
OTHER_RECIPE_ID = "0dd5"
"""The recipe that the first day was transcribed with before."""

PHRASE = ("harbour", "pilot", "ahoy")
"""Words that stand nowhere but at the beginning of every `PHRASE_EVERY`th recording of a day, from the first."""

PHRASE_EVERY = 100

MISHEARD = "zebra"
"""What the other recipe hears in place of every `MISHEARD_EVERY`th word, from the first."""

MISHEARD_EVERY = 20

REJECTED_EVERY = 10
"""Every such shard of a day holds one more recording, which nothing can read, from the first."""

DECODE_RTFX = 500.0
"""Speed of every run of the invented workers."""

WORKERS = {"gpu-1:1": 0.75, "gpu-2:1": 0.25}
"""Share of each day's audio that a worker decoded."""

GPU_HOUR_PRICE = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveConfig:
    """How large a lake to invent; the values are those of a million segments.

    num_days: date partitions. shards_per_day: shards of each, an hour of audio each as they stand here.
    recordings_per_shard, segments_per_recording: of each, silent segments counted in.
    words_per_segment: mean number, silent segments counted in.
    num_types: size of the vocabulary. seed: another seed, other speech.
    """

    num_days: int = 56
    shards_per_day: int = 30
    recordings_per_shard: int = 12
    segments_per_recording: int = 50
    words_per_segment: float = 15.0
    num_types: int = 40_000
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """What was invented, as the newer recipe heard it, which transcribed all of it."""

    num_recordings: int
    """Rejected ones too."""
    num_rejected: int
    num_segments: int
    num_words: int
    num_flagged: int
    num_phrases: int
    """Segments that begin with `PHRASE`."""
    num_twins: int
    """Recordings whose audio another one before them has."""
    num_misheard: int
    """Words of the first day in which the two recipes differ."""
    num_samples: int


def write_archive(lake_uri: str, config: ArchiveConfig) -> Archive:
    """Write a lake, a day after the other.

    Args:
        lake_uri: where nothing lies yet.
        config: how large.

    Returns:
        What must be found in it.
    """
    spelled = pa.array([*spellings(vocabulary(config.num_types, config.seed)), *PHRASE, MISHEARD])
    counts = dict.fromkeys((field.name for field in fields(Archive)), 0)
    for number in range(config.num_days):
        day = _invent(number, config)
        _count(day, counts)
        counts["num_rejected"] += _write_day(lake_uri, day, config, spelled)
        _write_runs(lake_uri, day)
        if number == 0:
            _write_presence(lake_uri, day)
            day.speech.word[::MISHEARD_EVERY] = len(spelled) - 1
            counts["num_misheard"] = len(day.speech.word[::MISHEARD_EVERY])
            _write_day(lake_uri, replace(day, recipe_id=OTHER_RECIPE_ID, is_latest=False), config, spelled)
            _write_evaluations(lake_uri, day)
    counts["num_recordings"] = counts["num_rejected"] + config.num_days * _recordings_a_day(config)
    return Archive(**counts)


def _recordings_a_day(config: ArchiveConfig) -> int:
    return config.shards_per_day * config.recordings_per_shard


def _invent(number: int, config: ArchiveConfig) -> Day:
    """Invent a day's recordings, and plant the phrase."""
    num_recordings, size = _recordings_a_day(config), config.segments_per_recording
    speech = say(num_recordings, size, config.words_per_segment, config.num_types, config.seed + number)
    first_words = np.concatenate([[0], np.cumsum(speech.num_words)])[::size][:-1][::PHRASE_EVERY]
    for offset in range(len(PHRASE)):
        speech.word[first_words + offset] = 2 * config.num_types + offset
    return Day(number=number, recipe_id=RECIPE_ID, is_latest=True, segments_per_recording=size, speech=speech)


def _count(day: Day, counts: dict[str, int]) -> None:
    """Add a day to what must be found."""
    speech = day.speech
    counts["num_segments"] += len(speech.is_speech)
    counts["num_words"] += len(speech.word)
    counts["num_flagged"] += len(speech.is_speech[::FLAGGED_EVERY])
    counts["num_phrases"] += len(range(0, day.num_recordings, PHRASE_EVERY))
    counts["num_twins"] += len(range(1, day.num_recordings, TWIN_EVERY))
    counts["num_samples"] += day.num_samples


def _write_day(lake_uri: str, day: Day, config: ArchiveConfig, spelled: pa.Array) -> int:
    """Commit a day's shards; returns how many rejected recordings were added."""
    segments, size = segment_rows(day, spelled), config.segments_per_recording
    num_rejected = 0
    for shard in range(config.shards_per_day):
        first, shard_id = shard * config.recordings_per_shard, f"{day.number:03d}-{shard:04d}"
        indices = range(first, first + config.recordings_per_shard)
        in_order = sorted(indices, key=lambda index: day.recording(index).recording_id)
        rows = [recording_row(day, index, shard_id) for index in in_order]
        if shard % REJECTED_EVERY == 0:
            rows.append(rejected_row(day, shard, shard_id))
            num_rejected += 1
        own = pa.concat_tables([segments.slice(index * size, size) for index in in_order])
        own = own.append_column("shard_id", pa.array([shard_id] * len(own)))
        recordings = pa.Table.from_pylist(rows, schema=RECORDINGS)  # a rejected row has columns of its own
        _commit(lake_uri, day, {"segments": own, "recordings": recordings})
    return num_rejected


def _commit(lake_uri: str, day: Day, tables: dict[str, pa.Table]) -> None:
    """Commit a shard's rows, with null in the columns that they do not have."""
    schema, added = table_schema("transcripts"), []
    for view, rows in tables.items():
        constants = {"recipe_id": day.recipe_id, "date": day.midnight.date(), "row_kind": ROW_KINDS[view]}
        columns = [
            rows[field.name].cast(field.type)
            if field.name in rows.column_names
            else pa.repeat(pa.scalar(constants.get(field.name), field.type), len(rows))
            for field in schema
        ]
        added.append(pa.table(columns, schema=schema))
    commit_transcripts(lake_uri, day.recipe_id, pa.concat_tables(added))


def _write_runs(lake_uri: str, day: Day) -> None:
    """Write a day's run and the decode runs of its workers, in one commit."""
    audio_s, rows = seconds(day.num_samples), []
    shares = {None: 1.0} | dict(WORKERS)
    for number, (worker, share) in enumerate(shares.items()):
        child = {"stage": "decode", "parent_run_id": day.run_id, "worker": worker, "busy_share": share}
        row = run_row(
            run_id=day.run_id if worker is None else f"{day.run_id}-{number}", recipe_id=day.recipe_id,
            recipe='{"model": {"name": "invented"}}', versions="{}", source="s3://archive/", device="cuda",
            started_at=day.midnight + timedelta(days=1, seconds=number), num_recordings=day.num_recordings,
            num_partial=0, num_rejected=0, num_segments=len(day.speech.is_speech), num_words=len(day.speech.word),
            audio_s=audio_s * share, wall_s=audio_s * share / DECODE_RTFX, peak_memory_bytes=10**9, num_attempts=1,
            gpu_hour_price=GPU_HOUR_PRICE, **({} if worker is None else child),
        )  # fmt: skip
        rows.append(row)
    append_rows(lake_uri, "runs", rows)


def _write_presence(lake_uri: str, day: Day) -> None:
    """Let the first recording of a day be deleted for good, and the second for a day."""
    uris = [day.recording(index).uri for index in range(2)]
    for number, (event, found) in enumerate({"deleted": uris, "returned": uris[1:]}.items(), 1):
        at = day.midnight + timedelta(days=number)
        rows = presence_rows([(uri, None) for uri in found], event, noticed_at=at, run_id=f"{day.run_id}-{event}")  # type: ignore[arg-type]
        append_rows(lake_uri, "presence", rows)


def _write_evaluations(lake_uri: str, day: Day) -> None:
    """Write two evaluations of each recipe, of which the newer is the better."""
    rows = []
    for number, (recipe_id, wer) in enumerate(
        [(RECIPE_ID, 0.2), (RECIPE_ID, 0.1), (OTHER_RECIPE_ID, 0.4), (OTHER_RECIPE_ID, 0.3)]
    ):
        errors = round(wer * 1000)
        figures = {
            "path": "diffusion", "steps": 8, "normalizer": "basic", "metric": "wer", "wer": wer, "cer": wer / 2,
            "edits": {"substitutions": errors, "deletions": 0, "insertions": 0, "reference_words": 1000},
            "num_utterances": 100, "num_flagged": 0, "failures": [], "audio_s": 400.0, "wall_s": 2.0, "rtfx": 200.0,
        }  # fmt: skip
        row = evaluation_row(
            figures, run_id=f"evaluation-{number}", recipe_id=recipe_id, manifest="invented.jsonl",
            manifest_digest="00", started_at=day.midnight + timedelta(hours=number),
        )  # fmt: skip
        rows.append(row)
    append_rows(lake_uri, "evaluations", rows)
