"""From a request to an answer: audio received, read, transcribed, in the form that the client wants.

What limits a request is here, and every refusal.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import UploadFile

from dgasr.errors import DgasrError, NoAudioStreamError, RecordingError, TooLongError, UnknownFormatError, printable
from dgasr.exports import export_srt, export_vtt
from dgasr.lake.rows import Row, segment_row
from dgasr.records import Segment, SegmentTranscript, join_words, seconds, silent_transcript
from dgasr.serving.live import BusyError, LiveTranscriber, OnStep, Way
from dgasr.serving.prepare import FetchError, Prepared, Preparer, TooLargeError, fetch_audio

FORM_BYTES = 65_536
"""What a form may hold beside its file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingConfig:
    """What a request may take.

    max_bytes: of an upload, or of what is behind an `audio_url`.
    timeout_s: for a request to come whole, and then for its answer: 408 and 504 after that.
    retry_after_s: what a client is told to wait where the queue is full.
    token: that clients must send as `Authorization: Bearer …`; empty for none.
    allowed_hosts: of an `audio_url`: names, `*` for all that are public, nothing for none.
    """

    max_bytes: int = 200_000_000
    timeout_s: float = 300.0
    retry_after_s: int = 5
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()


Events = AsyncGenerator[tuple[str, dict[str, Any]]]
"""`canvas` after each step of each segment, then `done` with the transcript or `error` with a message."""

Spell = Callable[[np.ndarray, np.ndarray], list[tuple[str, float]]]
"""Ids of a canvas and natural logarithms of how likely they are in; its tokens up to the end of the text as text out,
each with how likely it is, in [0, 1]."""

FORMS = ("json", "text", "srt", "vtt", "verbose_json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request, read; `form` is one of `FORMS`, `has_words` whether OpenAI's `verbose_json` has word times too."""

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


class Service:
    """Answers requests; every refusal is an HTTPException.

    The model's name is for clients that ask. The first language is the default, and the last number of denoising steps.
    """

    def __init__(
        self, model: str, live: LiveTranscriber, preparer: Preparer, languages: tuple[str, ...],
        step_counts: tuple[int, ...], spell: Spell, config: ServingConfig,
    ) -> None:  # fmt: skip
        self.model, self.live, self.preparer = model, live, preparer
        self.languages, self.step_counts = languages, step_counts
        self._spell, self.config = spell, config

    async def read(self, request: Request, given: Mapping[str, str]) -> Asked:
        """Receive and read what is to be transcribed; `given` are the fields in its address."""
        with tempfile.TemporaryDirectory(prefix="dgasr-serve-") as folder:
            path = Path(folder) / "audio"
            try:
                async with asyncio.timeout(self.config.timeout_s):
                    fields = await self._receive(self._bounded(request), path)
            except TimeoutError as error:
                raise _refusal(408, f"no whole request within {self.config.timeout_s:g} s.", "timeout") from error
            return await self._read(path, fields | dict(given))

    async def transcribe(self, request: Request, asked: Asked) -> list[SegmentTranscript]:
        """Transcribe what was read for a request, as long as its client is there."""
        return await self._wait(self._submit(asked), request)

    def stream(self, asked: Asked) -> AsyncIterator[str]:
        """Answer by server-sent events: `canvas` after each step of each segment, then `done` or `error`."""
        events = self._events(asked)
        return (f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n" async for name, data in events)

    async def watch(self, path: str, language: str, max_steps: int) -> Events:
        """Transcribe a file of this machine; yields the events of `stream`."""
        try:
            if Path(path).stat().st_size > self.config.max_bytes:
                raise self._too_large()
            events = self._events(await self._read(Path(path), {"language": language, "max_steps": str(max_steps)}))
        except HTTPException as error:
            yield "error", _detail(error)
            return
        async with aclosing(events):
            async for event in events:
                yield event

    def _events(self, asked: Asked) -> Events:
        """Queue a request's segments at once; a full queue is refused before the first event."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def on_step(segment: Segment, step: int, ids: np.ndarray, log_probabilities: np.ndarray) -> None:
            canvas = {"segment_index": segment.segment_index, "start_s": seconds(segment.start_sample), "step": step,
                      "tokens": self._spell(ids, log_probabilities)}  # fmt: skip
            loop.call_soon_threadsafe(queue.put_nowait, canvas)

        futures = self._submit(asked, on_step)

        async def events() -> Events:
            waiting = asyncio.ensure_future(self._wait(futures))
            waiting.add_done_callback(lambda _: queue.put_nowait(None))
            try:
                while (canvas := await queue.get()) is not None:
                    yield "canvas", canvas
                yield "done", asked.last_event(await waiting)
            except HTTPException as error:
                yield "error", _detail(error)
            finally:
                waiting.cancel()

        return events()

    async def _read(self, path: Path, fields: Mapping[str, str]) -> Asked:
        counts = list(map(str, self.step_counts))
        choices = {"language": (self.languages, self.languages[0]), "response_format": (FORMS, FORMS[0]),
                   "max_steps": (counts, counts[-1])}  # fmt: skip
        chosen = {}
        for name, (known, default) in choices.items():
            chosen[name] = fields.get(name) or default
            if chosen[name] not in known:
                raise _refusal(400, f"{name} {chosen[name]!r}: this model knows {', '.join(known)}.", name)
        if fields.get("stream") in ("true", "True", "1"):
            raise _refusal(400, "stream: `POST /transcribe?stream=denoise` has one. Leave it out here.", "stream")
        try:
            prepared = await self.preparer.prepare(path)
        except RecordingError as error:
            is_unknown = isinstance(error, UnknownFormatError | NoAudioStreamError)
            status = 415 if is_unknown else 413 if isinstance(error, TooLongError) else 422
            raise _refusal(status, str(error), str(error.reason)) from error
        return Asked(
            prepared=prepared, way=Way(chosen["language"], int(chosen["max_steps"])), form=chosen["response_format"],
            has_words="word" in fields.get("timestamp_granularities[]", ""),
        )  # fmt: skip

    async def _receive(self, request: Request, path: Path) -> dict[str, str]:
        """Write the audio of a request into a file, whatever way it comes; return its other fields."""
        kind = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind == "application/json":
            return await self._from_url(request, path)
        if kind != "multipart/form-data":
            with path.open("wb") as copy:
                async for block in request.stream():
                    copy.write(block)  # into the page cache: handing it to a thread would take longer
            return {}
        async with request.form(max_files=1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise _refusal(400, "file: the form has no part of this name with audio in it.", "file")
            if (file.size or 0) > self.config.max_bytes:
                raise self._too_large()
            with path.open("wb") as copy:
                await asyncio.to_thread(shutil.copyfileobj, file.file, copy)
            return {name: ",".join(map(str, form.getlist(name))) for name in form if name != "file"}

    def _bounded(self, request: Request) -> Request:
        """Let a request end where it gets too large, before a form of it is spooled to the disk."""
        is_form = request.headers.get("Content-Type", "").startswith("multipart/")
        count, most = 0, self.config.max_bytes + (FORM_BYTES if is_form else 0)
        if int(request.headers.get("Content-Length") or 0) > most:
            raise self._too_large()

        async def receive() -> Any:
            nonlocal count
            message = await request.receive()
            count += len(message.get("body", b""))
            if count > most:
                raise self._too_large()
            return message

        return Request(request.scope, receive)

    async def _from_url(self, request: Request, path: Path) -> dict[str, str]:
        try:
            fields = {str(name): str(value) for name, value in (await request.json()).items()}
        except (ValueError, AttributeError) as error:
            raise _refusal(400, 'JSON must be an object with "audio_url".', "invalid_request") from error
        if "audio_url" not in fields:
            raise _refusal(400, "audio_url: missing. Send audio itself, or JSON with its address.", "audio_url")
        if not self.config.allowed_hosts:
            raise _refusal(403, "audio_url: this server fetches nothing. Send the audio itself.", "audio_url")
        limits = (self.config.allowed_hosts, self.config.max_bytes, self.config.timeout_s)
        try:
            await fetch_audio(fields["audio_url"], path, *limits)
        except TooLargeError as error:
            raise self._too_large() from error
        except FetchError as error:
            raise _refusal(400, str(error), "audio_url") from error
        return fields

    def _too_large(self) -> HTTPException:
        return _refusal(413, f"more than {self.config.max_bytes:,} bytes.", "too_large")

    def _submit(self, asked: Asked, on_step: OnStep | None = None) -> list[Any]:
        try:
            futures = self.live.submit(asked.way, asked.prepared.spoken, on_step)
            return [asyncio.wrap_future(future) for future in futures]
        except BusyError as error:
            headers = {"Retry-After": str(self.config.retry_after_s)}
            raise _refusal(429, f"{error} Try again later.", "busy", headers) from error

    async def _wait(self, futures: list[Any], request: Request | None = None) -> list[SegmentTranscript]:
        """Wait for all; where the client goes away or the time is up, what has no row yet takes none."""
        work = asyncio.gather(*futures)
        # Its body is read: what comes next says that the client has gone. Nobody has to look again and again.
        left = asyncio.ensure_future(_gone(request)) if request is not None else None
        try:
            waited: set[asyncio.Future[Any]] = {work, left} if left else {work}
            await asyncio.wait(waited, timeout=self.config.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if left and left.done():
                raise _refusal(499, "the client went away.", "disconnected")
            raise _refusal(504, f"no answer within {self.config.timeout_s:g} s.", "timeout")
        except DgasrError as error:
            raise _refusal(500, str(error), "transcriber") from error
        finally:
            for own in (*futures, *([left] if left else [])):
                own.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _detail(error: HTTPException) -> dict[str, Any]:
    detail: Any = error.detail
    return dict(detail)


def _refusal(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(status, {"message": printable(message), "code": code}, headers)


def _text(rows: Iterable[Row]) -> str:
    return join_words(row["text"] for row in rows if row["text"])
