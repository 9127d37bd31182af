"""Transcripts out of a lake: a choice in, recordings with their segments out, one after the other. Writes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from os.path import commonprefix
from typing import Any

import duckdb
import pyarrow as pa

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.query import Questions
from dgasr.lake.views import connect_tables
from dgasr.records import join_words

Row = dict[str, Any]

OF_RECIPE = """
    select * from recordings where recipe_id = $recipe
    qualify row_number() over (partition by uri order by modified_at desc, recording_id) = 1
"""

LATEST = "from recordings_latest"

RECORDING_COLUMNS = ("uri", "status", "reason", "message", "decoded_s", "num_words", "language", "recording_id")

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

ROWS_AT_ONCE = 200
"""Segments that are fetched together, or a quarter as many recordings."""


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
    """Yield some recordings with their segments, as far as the lake holds them for a recipe, sorted by URI."""
    wanted = pa.table({"recording_id": pa.array(sorted(set(recording_ids)), pa.string())})
    with connect_tables(lake_uri) as connection:
        connection.register("wanted", wanted)
        cursor = connection.execute(WANTED_TRANSCRIPTS, [recipe_id])
        while rows := cursor.fetchmany(ROWS_AT_ONCE // 4):
            for recording, segments in rows:
                yield RecordingTranscript(recording=recording, segments=tuple(segments or ()))


class ChosenTranscripts:
    """The transcripts of a lake that is open for which all of this holds; raises as `Questions` does.

    Args:
        questions: the lake.
        prefix: what their URIs begin with.
        recipe_id: the recipe that made them; empty for each recording's latest.
        query: a question whose answer has their URIs in a column `uri`; empty for all.

    Attributes:
        num_recordings: how many are chosen.
        num_rejected: of these, without any transcript.
        folder: what all URIs begin with, up to and with a slash.
    """

    def __init__(self, questions: Questions, prefix: str = "", recipe_id: str = "", query: str = "") -> None:
        self._questions = questions
        conditions = ["starts_with(uri, $prefix)"]
        if query:
            questions.register("wanted_uris", _uris(questions, query))
            conditions.append("uri in (select uri from wanted_uris)")
        source = OF_RECIPE if recipe_id else LATEST
        self._chosen = f"with chosen as (from ({source}) where {' and '.join(conditions)})"
        self._values = {"prefix": prefix} | ({"recipe": recipe_id} if recipe_id else {})
        ((self.num_recordings, self.num_rejected, first, last),) = self._ask(
            "select count(*), count(*) filter (where status = 'rejected'), min(uri), max(uri) from chosen"
        ).fetchall()
        self.folder = common_folder([first or "", last or ""])

    def uris(self) -> list[str]:
        """List the recordings that are chosen, with a transcript or without, in order."""
        return [uri for (uri,) in self._ask("select uri from chosen order by uri").fetchall()]

    def read(self) -> Iterator[RecordingTranscript]:
        """Yield each recording that has a transcript; IntegrityError where its segments do not follow each other."""
        names = ", ".join(f"chosen.{name} as of_{name}" for name in RECORDING_COLUMNS)
        cursor = self._ask(
            f'select {names}, segments.* from segments join chosen using (recipe_id, "date", recording_id)'
        )
        done: set[str] = set()
        for recording_id, rows in groupby(self._rows(cursor), key=lambda row: row["recording_id"]):
            if recording_id in done:
                raise IntegrityError(f"recording {recording_id}: its segments do not follow each other in the lake.")
            done.add(recording_id)
            segments = sorted(rows, key=lambda row: row["segment_index"])
            recording = {name: segments[0][f"of_{name}"] for name in RECORDING_COLUMNS}
            yield RecordingTranscript(recording=recording, segments=tuple(segments))

    def _ask(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Ask something of what is chosen."""
        return self._questions.execute(f"{self._chosen} {sql}", self._values)

    def _rows(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[Row]:
        """Yield a result's rows by the names of their columns."""
        names = [column[0] for column in cursor.description]
        while rows := self._questions.fetch(cursor, ROWS_AT_ONCE):
            yield from (dict(zip(names, row, strict=True)) for row in rows)


def _uris(questions: Questions, query: str) -> pa.Table:
    """Answer a question that chooses URIs."""
    cursor = questions.execute(query, {})
    names = [column[0] for column in cursor.description or ()]
    if "uri" not in names:
        raise ConfigError(
            f"--query: its answer has no column uri, only {', '.join(names) or 'nothing'}. Select uri too."
        )
    uris = {row[names.index("uri")] for row in cursor.fetchall()}
    return pa.table({"uri": pa.array(sorted(uri for uri in uris if uri is not None), pa.string())})


def common_folder(uris: Sequence[str]) -> str:
    """Return what all URIs begin with, up to and with a slash; the first and last of sorted ones stand for all."""
    same = commonprefix(list(uris))  # noqa: RUF071 (by characters is right: it is cut at a slash)
    return same[: same.rfind("/") + 1]
