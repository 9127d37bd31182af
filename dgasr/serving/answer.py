"""What is known of one file, in the forms that clients ask for: our own JSON, OpenAI's, text and subtitles."""

from dataclasses import dataclass
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

from dgasr.exports import export_srt, export_vtt
from dgasr.lake.rows import Row
from dgasr.records import join_words

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A file's transcript.

    rows: of its segments, as the lake has them.
    duration_s: of the file, s.
    message: why it ends early, `None` where it does not.
    language: that it was transcribed in.
    form: one of `FORMATS`.
    has_words: whether OpenAI's `verbose_json` has word times too.
    """

    rows: list[Row]
    duration_s: float
    message: str | None
    language: str
    form: str
    has_words: bool

    @property
    def text(self) -> str:
        """All that is said."""
        return join_words(row["text"] for row in self.rows if row["text"])

    def response(self, *, is_openai: bool) -> Response:
        """Write it in its form; JSON as OpenAI's client reads it, or as ours."""
        if self.form == "text":
            return PlainTextResponse(self.text + "\n")
        if self.form == "srt":
            return PlainTextResponse(export_srt(self.rows), media_type="application/x-subrip")
        if self.form == "vtt":
            return PlainTextResponse(export_vtt(self.rows), media_type="text/vtt")
        if is_openai and self.form == "json":
            return JSONResponse({"text": self.text})
        return JSONResponse(self._openai() if is_openai else self.own())

    def _openai(self) -> dict[str, Any]:
        spoken = [row for row in self.rows if row["text"]]
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
            "task": "transcribe", "language": self.language, "duration": self.duration_s, "text": self.text,
            "segments": segments,
        }  # fmt: skip
        return document | ({"words": words} if self.has_words else {})

    def own(self) -> dict[str, Any]:
        """Give our own JSON: segments and words as the lake has them."""
        names = ("start_s", "end_s", "kind", "text", "confidence", "flags", "words", "channel")
        return {
            "text": self.text, "language": self.language, "duration_s": self.duration_s,
            "message": self.message, "segments": [{name: row[name] for name in names} for row in self.rows],
        }  # fmt: skip
