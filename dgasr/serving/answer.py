"""What is asked about a file, and the answer in the form that the client wants: our JSON, OpenAI's, text, subtitles."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

from dgasr.exports import export_srt, export_vtt
from dgasr.lake.rows import Row, segment_row
from dgasr.records import SegmentTranscript, join_words, silent_transcript
from dgasr.serving.live import Way
from dgasr.serving.prepare import Prepared

FORMS = ("json", "text", "srt", "vtt", "verbose_json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request, read.

    prepared: what is to be transcribed.
    way: how.
    form: of the answer, one of `FORMS`.
    has_words: whether OpenAI's `verbose_json` has word times too.
    """

    prepared: Prepared
    way: Way
    form: str
    has_words: bool

    def response(self, spoken: Iterable[SegmentTranscript], *, is_openai: bool) -> Response:
        """Answer with the transcripts of `prepared.spoken`; JSON as OpenAI's client reads it, or as ours."""
        rows = self._rows(spoken)
        if self.form == "text":
            return PlainTextResponse(_text(rows) + "\n")
        if self.form == "srt":
            return PlainTextResponse(export_srt(rows), media_type="application/x-subrip")
        if self.form == "vtt":
            return PlainTextResponse(export_vtt(rows), media_type="text/vtt")
        if not is_openai:
            return JSONResponse(self._own(rows))
        return JSONResponse({"text": _text(rows)} if self.form == "json" else self._openai(rows))

    def last_event(self, spoken: Iterable[SegmentTranscript]) -> dict[str, Any]:
        """Give our JSON with both subtitles, for a page."""
        rows = self._rows(spoken)
        return self._own(rows) | {"srt": export_srt(rows), "vtt": export_vtt(rows)}

    def _rows(self, spoken: Iterable[SegmentTranscript]) -> list[Row]:
        """Make the rows that the lake would have."""
        silent = (silent_transcript(segment, self.way.language) for segment in self.prepared.silent)
        ordered = sorted([*spoken, *silent], key=lambda transcript: transcript.segment.segment_index)
        return [segment_row(transcript, shard_id="") for transcript in ordered]

    def _own(self, rows: list[Row]) -> dict[str, Any]:
        names = ("start_s", "end_s", "kind", "text", "confidence", "flags", "words", "channel")
        return {
            "text": _text(rows), "language": self.way.language, "duration_s": self.prepared.duration_s,
            "message": self.prepared.message, "segments": [{name: row[name] for name in names} for row in rows],
        }  # fmt: skip

    def _openai(self, rows: list[Row]) -> dict[str, Any]:
        spoken = [row for row in rows if row["text"]]
        segments = [
            {"id": number, "seek": 0, "start": row["start_s"], "end": row["end_s"], "text": row["text"], "tokens": [],
             "temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0}
            for number, row in enumerate(spoken)
        ]  # fmt: skip
        words = [
            {"word": word["word"], "start": word["start_s"], "end": word["end_s"]}
            for row in spoken
            for word in row["words"]
        ]
        document = {
            "task": "transcribe", "language": self.way.language, "duration": self.prepared.duration_s,
            "text": _text(rows), "segments": segments,
        }  # fmt: skip
        return document | ({"words": words} if self.has_words else {})


def _text(rows: Iterable[Row]) -> str:
    return join_words(row["text"] for row in rows if row["text"])
