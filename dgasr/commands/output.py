"""What commands show: transcripts on standard output, in a table or an export format; progress on standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from dgasr.commands.arguments import progress
from dgasr.errors import printable
from dgasr.exports import by_channel, export_ctm, export_json, export_manifest, export_srt, export_txt, export_vtt
from dgasr.lake.query import write_json_array
from dgasr.lake.transcripts import RecordingTranscript, common_folder
from dgasr.records import Shard, join_words
from dgasr.stages.counts import Counts
from dgasr.stages.heartbeat import Progress
from dgasr.tables import format_table, line_width

Result = TypeVar("Result")

TABLE_ROWS = 200
"""Recordings that a table shows; the lake holds all of them."""

UNFINISHED = ".part"
"""How the name of a file ends while it is written."""

COLUMNS = ("recording", "status", "audio_s", "words", "confidence", "flagged", "text")


def write_transcripts(transcripts: Iterable[RecordingTranscript], format: str, has_many: bool, out: TextIO) -> int:
    """Write transcripts one after the other.

    Args:
        transcripts: what to write, taken lazily, to the last one.
        format: `table`, `txt`, `srt`, `vtt`, `ctm`, `manifest` or `json`. JSON is an array with one object a recording.
        has_many: whether several recordings follow, so that text and subtitles need a line that says whose they are.
        out: where to.

    Returns:
        How many there were.
    """
    count = 0

    def counted() -> Iterator[RecordingTranscript]:
        nonlocal count
        for count, transcript in enumerate(transcripts, 1):  # noqa: B007 (the number of the last one is what is asked)
            yield transcript

    if format == "table":
        _write_table(counted(), out)
    elif format == "json":
        write_json_array(map(_document, counted()), out, indent=1)
    elif format == "ctm":
        out.writelines(export_ctm(one.segments, _stem(str(one.recording["uri"]))) for one in counted())
    elif format == "manifest":
        out.writelines(export_manifest(one.segments, str(one.recording["uri"])) for one in counted())
    else:
        export = {"txt": export_txt, "srt": export_srt, "vtt": export_vtt}[format]
        for transcript in counted():
            heading = f"# {printable(transcript.recording['uri'])}\n" if has_many else ""
            out.write(heading + export(transcript.segments) + ("\n" if has_many else ""))
    return count


def _write_table(transcripts: Iterable[RecordingTranscript], out: TextIO) -> None:
    remaining = iter(transcripts)
    shown = [transcript for _, transcript in zip(range(TABLE_ROWS), remaining, strict=False)]
    prefix = common_folder([str(transcript.recording["uri"]) for transcript in shown])
    out.write(format_table(COLUMNS, [row for one in shown for row in _table_rows(one, prefix)], line_width(out)))
    num_more = sum(1 for _ in remaining)
    if num_more:
        out.write(f"… and {num_more} more; `dgasr sql latest_transcripts --lake …` has all of them.\n")


def _stem(uri: str) -> str:
    """Return the name of a recording without its folder and ending."""
    name = uri.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _table_rows(transcript: RecordingTranscript, prefix: str) -> Iterator[list[object]]:
    """Make the row of a recording, or one for each channel that was transcribed by itself."""
    row = transcript.recording
    status = row["status"] if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
    for speaker, segments in by_channel(transcript.segments) or [("", [])]:
        confidences = [(s["confidence"], s["end_s"] - s["start_s"]) for s in segments if s["text"]]
        length_s = sum(duration_s for _, duration_s in confidences)
        yield [
            str(row["uri"])[len(prefix) :] + (f" ({speaker})" if speaker else ""),
            status,
            round(row["decoded_s"], 1),
            sum(len(segment["words"]) for segment in segments),
            sum(value * duration_s for value, duration_s in confidences) / length_s if length_s else None,
            sum(bool(segment["flags"]) for segment in segments),
            join_words(segment["text"] for segment in segments),
        ]


def _document(transcript: RecordingTranscript) -> dict[str, Any]:
    row = transcript.recording
    document = {name: row[name] for name in ("uri", "status", "reason", "message", "decoded_s")}
    return document | {"text": transcript.text} | json.loads(export_json(transcript.segments, row["language"]))


def write_whole(path: Path, write: Callable[[TextIO], Result]) -> Result:
    """Write a file that is there whole or not at all, and return what its writer returns."""
    part = path.with_name(path.name + UNFINISHED)
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            result = write(file)
        part.replace(path)
    finally:
        with suppress(OSError):  # whatever kept it from being written
            part.unlink()
    return result


class ProgressBars(Progress):
    """Shows on standard error how far `dgasr.stages.embedded` is: one shard is read while another one is decoded."""

    def __init__(self) -> None:
        self._reading, self._decoding = tqdm(disable=True), progress("decoding", " segments", 0)

    def begin_reading(self, shard: Shard) -> None:
        """Show a bar of recordings."""
        self._reading = progress("reading", " recordings", len(shard.recordings))

    def recording_read(self) -> None:
        """Advance it."""
        self._reading.update()

    def begin_decoding(self, shard: Shard, num_segments: int) -> None:
        """Take the bar of recordings away, and lengthen that of segments."""
        self._reading.close()
        self._decoding.total += num_segments
        self._decoding.refresh()

    def segment_decoded(self) -> None:
        """Advance it."""
        self._decoding.update()

    def end_shard(self, shard_id: str, counts: Counts) -> None:
        """Leave a line."""
        tqdm.write(f"shard {shard_id}: {counts.line()}", file=sys.stderr)
