"""From a request to an answer: audio received, read, transcribed. What limits a request is here, and every refusal."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from dgasr.errors import DgasrError, NoAudioStreamError, RecordingError, TooLongError, UnknownFormatError, printable
from dgasr.exports import export_srt, export_vtt
from dgasr.lake.rows import segment_row
from dgasr.records import Segment, SegmentTranscript, seconds, silent_transcript
from dgasr.serving.answer import FORMATS, Answer
from dgasr.serving.fetch import FetchError, TooLargeError, fetch_audio
from dgasr.serving.live import BusyError, LiveTranscriber, OnStep, Way
from dgasr.serving.prepare import Prepared, Preparer

FORM_BYTES = 65_536
"""What a form may hold beside its file."""

POLL_S = 0.25
"""How often a request that waits looks whether its client is still there."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A request, read: what is to be transcribed, and how it is to be answered."""

    prepared: Prepared
    way: Way
    form: str
    has_words: bool

    def answer(self, spoken: Sequence[SegmentTranscript]) -> Answer:
        silent = [silent_transcript(segment, self.way.language) for segment in self.prepared.silent]
        ordered = sorted([*spoken, *silent], key=lambda transcript: transcript.segment.segment_index)
        return Answer(
            rows=[segment_row(transcript, shard_id="") for transcript in ordered],
            duration_s=self.prepared.duration_s, message=self.prepared.message, language=self.way.language,
            form=self.form, has_words=self.has_words,
        )  # fmt: skip


class Service:
    """Answers requests; every refusal is an HTTPException.

    Args:
        model: name of what transcribes, for clients that ask.
        live: transcribes.
        preparer: reads audio.
        languages: codes that the model knows, the first one being the default.
        step_counts: denoising steps that may be asked for, the last one being the default.
        spell: turns canvases into text.
        config: limits.
    """

    def __init__(
        self, model: str, live: LiveTranscriber, preparer: Preparer, languages: tuple[str, ...],
        step_counts: tuple[int, ...], spell: Spell, config: ServingConfig,
    ) -> None:  # fmt: skip
        self.model, self.live, self.preparer = model, live, preparer
        self.languages, self.step_counts = languages, step_counts
        self._spell, self._config = spell, config

    async def transcribe(self, request: Request, given: Mapping[str, str]) -> Answer:
        """Answer one request; `given` are the fields in its address."""
        asked = await self._asked(request, given)
        spoken = await self._wait(request, self._submit(asked))
        return asked.answer(spoken)

    async def stream(self, request: Request, given: Mapping[str, str]) -> AsyncIterator[str]:
        """Answer by server-sent events: `canvas` after each step of each segment, then `done` or `error`."""
        events = self._watched(await self._asked(request, given))
        return (f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n" async for name, data in events)

    async def watch(self, path: str, language: str, max_steps: int) -> Events:
        """Transcribe a file of this machine; yields the events of `stream`."""
        try:
            if Path(path).stat().st_size > self._config.max_bytes:
                raise self._too_large()
            asked = await self._read(Path(path), {"language": language, "max_steps": str(max_steps)})
            events = self._watched(asked)
        except HTTPException as error:
            yield "error", _detail(error)
            return
        async with aclosing(events):
            async for event in events:
                yield event

    def _watched(self, asked: "_Asked") -> Events:
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def on_step(segment: Segment, step: int, ids: np.ndarray, log_probabilities: np.ndarray) -> None:
            canvas = {"segment_index": segment.segment_index, "start_s": seconds(segment.start_sample), "step": step,
                      "tokens": self._spell(ids, log_probabilities)}  # fmt: skip
            loop.call_soon_threadsafe(queue.put_nowait, canvas)

        return self._events(asked, self._submit(asked, on_step), queue)

    async def _events(
        self, asked: "_Asked", futures: list[Any], queue: "asyncio.Queue[dict[str, Any] | None]"
    ) -> Events:
        waiting = asyncio.ensure_future(self._wait(None, futures))
        waiting.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (canvas := await queue.get()) is not None:
                yield "canvas", canvas
            answer = asked.answer(await waiting)
            yield "done", answer.own() | {"srt": export_srt(answer.rows), "vtt": export_vtt(answer.rows)}
        except HTTPException as error:
            yield "error", _detail(error)
        finally:
            waiting.cancel()

    async def _asked(self, request: Request, given: Mapping[str, str]) -> "_Asked":
        """Receive and read what is to be transcribed."""
        with tempfile.TemporaryDirectory(prefix="dgasr-serve-") as folder:
            path = Path(folder) / "audio"
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    fields = await self._receive(self._bounded(request), path)
            except TimeoutError as error:
                raise _refusal(408, f"no whole request within {self._config.timeout_s:g} s.", "timeout") from error
            return await self._read(path, fields | dict(given))

    async def _read(self, path: Path, fields: Mapping[str, str]) -> "_Asked":
        """Check what is asked for, and read the audio."""
        language = fields.get("language") or self.languages[0]
        form = fields.get("response_format") or "json"
        max_steps = fields.get("max_steps") or str(self.step_counts[-1])
        if language not in self.languages:
            raise _refusal(400, f"language {language!r}: this model knows {', '.join(self.languages)}.", "language")
        if form not in FORMATS:
            raise _refusal(400, f"response_format {form!r}: choose {', '.join(FORMATS)}.", "response_format")
        if max_steps not in map(str, self.step_counts):
            known = ", ".join(map(str, self.step_counts))
            raise _refusal(400, f"max_steps {max_steps!r}: choose {known}.", "max_steps")
        if fields.get("stream") in ("true", "True", "1"):
            raise _refusal(400, "stream: `POST /transcribe?stream=denoise` has one. Leave it out here.", "stream")
        has_words = "word" in fields.get("timestamp_granularities[]", "")
        prepared = await self._prepare(path)
        return _Asked(prepared=prepared, way=Way(language, int(max_steps)), form=form, has_words=has_words)

    async def _receive(self, request: Request, path: Path) -> dict[str, str]:
        """Write the audio of a request into a file, whatever way it comes; return its other fields."""
        kind = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind == "application/json":
            return await self._from_url(await self._json(request), path)
        if kind != "multipart/form-data":
            await self._write(request.stream(), path)
            return {}
        try:
            async with request.form(max_files=1) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise _refusal(400, "file: the form has no part of this name with audio in it.", "file")
                await self._write(_blocks(file), path)
                names = {name: ",".join(map(str, form.getlist(name))) for name in form if name != "file"}
        except MultiPartException as error:
            raise _refusal(400, f"the form cannot be read: {error.message}.", "invalid_request") from error
        return names

    def _bounded(self, request: Request) -> Request:
        """Let a request end where it gets too large, before a form of it is spooled to the disk."""
        count, most = 0, self._config.max_bytes + FORM_BYTES
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

    async def _json(self, request: Request) -> dict[str, str]:
        try:
            fields = await request.json()
            return {str(name): str(value) for name, value in fields.items()}
        except (ValueError, AttributeError) as error:
            raise _refusal(400, 'JSON must be an object with "audio_url".', "invalid_request") from error

    async def _from_url(self, fields: dict[str, str], path: Path) -> dict[str, str]:
        if "audio_url" not in fields:
            raise _refusal(400, "audio_url: missing. Send audio itself, or JSON with its address.", "audio_url")
        if not self._config.allowed_hosts:
            raise _refusal(403, "audio_url: this server fetches nothing. Send the audio itself.", "audio_url")
        limits = (self._config.allowed_hosts, self._config.max_bytes, self._config.timeout_s)
        try:
            await fetch_audio(fields["audio_url"], path, *limits)
        except TooLargeError as error:
            raise self._too_large() from error
        except FetchError as error:
            raise _refusal(400, str(error), "audio_url") from error
        return fields

    async def _write(self, blocks: AsyncIterator[bytes], path: Path) -> None:
        count = 0
        with path.open("wb") as file:
            async for block in blocks:
                count += len(block)
                if count > self._config.max_bytes:
                    raise self._too_large()
                await asyncio.to_thread(file.write, block)

    def _too_large(self) -> HTTPException:
        return _refusal(413, f"more than {self._config.max_bytes:,} bytes.", "too_large")

    async def _prepare(self, path: Path) -> Prepared:
        try:
            return await asyncio.to_thread(self.preparer.prepare, path)
        except (UnknownFormatError, NoAudioStreamError) as error:
            raise _refusal(415, str(error), str(error.reason)) from error
        except TooLongError as error:
            raise _refusal(413, str(error), str(error.reason)) from error
        except RecordingError as error:
            raise _refusal(422, str(error), str(error.reason)) from error

    def _submit(self, asked: "_Asked", on_step: OnStep | None = None) -> list[Any]:
        try:
            futures = self.live.submit(asked.way, asked.prepared.spoken, on_step)
            return [asyncio.wrap_future(future) for future in futures]
        except BusyError as error:
            headers = {"Retry-After": str(self._config.retry_after_s)}
            raise _refusal(429, f"{error} Try again later.", "busy", headers) from error

    async def _wait(self, request: Request | None, futures: list[Any]) -> list[SegmentTranscript]:
        """Wait for all; where the client goes away or the time is up, what has no row yet takes none."""
        deadline = time.monotonic() + self._config.timeout_s
        pending = set(futures)
        try:
            while pending:
                _, pending = await asyncio.wait(pending, timeout=POLL_S)
                if pending and time.monotonic() > deadline:
                    raise _refusal(504, f"no answer within {self._config.timeout_s:g} s.", "timeout")
                if pending and request is not None and await request.is_disconnected():
                    raise _refusal(499, "the client went away.", "disconnected")
            return [future.result() for future in futures]
        except DgasrError as error:
            raise _refusal(500, str(error), "transcriber") from error
        finally:
            for future in pending:
                future.cancel()


async def _blocks(file: UploadFile) -> AsyncIterator[bytes]:
    while block := await file.read(1 << 20):
        yield block


def _detail(error: HTTPException) -> dict[str, Any]:
    detail: Any = error.detail
    return dict(detail)


def _refusal(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> HTTPException:
    return HTTPException(status, {"message": printable(message), "code": code}, headers)
