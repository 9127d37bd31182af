"""Transcripts read back from the lake: recordings of one recipe with their segments, in order. Writes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dgasr.lake.views import connect
from dgasr.records import join_words

Row = dict[str, Any]

WANTED_TRANSCRIPTS = """
    select recording, list(segment order by segment.segment_index) filter (where segment.recording_id is not null)
    from recordings as recording
    join wanted on wanted.recording_id = recording.recording_id
    left join segments as segment
        on segment.recipe_id = recording.recipe_id and segment.recording_id = recording.recording_id
    where recording.recipe_id = ?
    group by recording
    order by any_value(recording.uri)
"""

ROWS_AT_ONCE = 50
"""Recordings fetched together: bounds the memory of what is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingTranscript:
    """Rows of the lake that belong to one recording."""

    recording: Row
    """A row of `recordings`."""
    segments: tuple[Row, ...]
    """Its rows of `segments`, in order."""

    @property
    def text(self) -> str:
        """The text of all segments."""
        return join_words(row["text"] for row in self.segments)


def read_transcripts(lake_uri: str, recipe_id: str, recording_ids: Sequence[str]) -> Iterator[RecordingTranscript]:
    """Read recordings with their segments.

    Args:
        lake_uri: the lake.
        recipe_id: the recipe whose transcripts to read.
        recording_ids: which recordings.

    Yields:
        Those of them that the lake holds, sorted by URI; one recording's segments in memory at a time.
    """
    wanted = pa.table({"recording_id": pa.array(sorted(set(recording_ids)), pa.string())})
    with connect(lake_uri) as connection:
        connection.register("wanted", wanted)
        cursor = connection.execute(WANTED_TRANSCRIPTS, [recipe_id])
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            for recording, segments in rows:
                yield RecordingTranscript(recording=recording, segments=tuple(segments or ()))
