"""The routes of `dgasr serve`, its token and its metrics. What a request becomes is `service.py`'s matter."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgasr.serving.service import Service

PAGE = "/page"
"""Where the page is mounted, if it is; it has a login of its own."""

OPEN_ROUTES = ("/health", "/ready", "/metrics")
"""Asked by machines that have no token."""

COUNTED_ROUTES = ("/transcribe", "/v1/audio/transcriptions")


class _Metrics:
    def __init__(self, service: Service) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("dgasr_requests", "Requests by route and status", ("route", "status"), registry=own)
        self.audio_s = Counter("dgasr_audio_seconds", "Audio that was transcribed, s", registry=own)
        buckets = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
        self.latency = Histogram(
            "dgasr_request_seconds", "From a request to its answer, s", ("route",), registry=own, buckets=buckets
        )
        self.in_flight = Gauge("dgasr_requests_in_flight", "Requests that are being answered", registry=own)
        waiting = Gauge("dgasr_waiting_segments", "Segments that wait for a row", registry=own)
        waiting.set_function(lambda: service.live.num_waiting)


class _Guard:
    """Asks for the token, and counts. Plain ASGI: what Starlette builds of a function costs a task for each request."""

    def __init__(self, app: ASGIApp, token: str, metrics: _Metrics) -> None:
        self._app, self._token, self._metrics = app, token, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        route, started, status = scope["path"], time.perf_counter(), 500
        known = route if route in COUNTED_ROUTES else "other"

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if self._is_allowed(route, Headers(scope=scope)):
                with self._metrics.in_flight.track_inprogress():
                    await self._app(scope, receive, noting)
            else:
                refusal = _error(401, "Send the token as `Authorization: Bearer …`.", "invalid_api_key")
                await refusal(scope, receive, noting)
        finally:
            self._metrics.requests.labels(known, str(status)).inc()
            self._metrics.latency.labels(known).observe(time.perf_counter() - started)

    def _is_allowed(self, route: str, headers: Headers) -> bool:
        if not self._token or route in OPEN_ROUTES or route.startswith(PAGE):
            return True
        sent = headers.get("Authorization", "").removeprefix("Bearer ")
        return secrets.compare_digest(sent.encode(), self._token.encode())


def create_app(service: Service) -> FastAPI:
    """Build the app around a service, which is closed with the app."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.live.close)
        await asyncio.to_thread(service.preparer.close)

    app = FastAPI(title="dgasr", description="Transcription by a diffusion decoder.", lifespan=lifespan)
    metrics = _Metrics(service)
    app.add_middleware(_Guard, token=service.config.token, metrics=metrics)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        # Ours say more than a text; Starlette's are of a route that is not there, or a form that cannot be read.
        detail: Any = error.detail if isinstance(error.detail, dict) else {"message": error.detail, "code": None}
        return _error(error.status_code, detail["message"], detail["code"], error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _error(400, "; ".join(f"{own['loc'][-1]}: {own['msg']}" for own in error.errors()), "invalid_request")

    @app.get("/health", response_class=PlainTextResponse, summary="Whether the process lives")
    async def health() -> str:
        return "ok"

    @app.get("/ready", response_class=PlainTextResponse, summary="Whether it takes requests")
    async def ready() -> str:
        if service.live.is_closed:
            raise HTTPException(503, "shutting down")
        return "ok"

    @app.get("/metrics", summary="For Prometheus")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", summary="The one model, as OpenAI lists its own")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": service.model, "object": "model", "created": 0, "owned_by": "dgasr"}]}

    async def answer(request: Request, given: dict[str, str], *, is_openai: bool) -> Response:
        asked = await service.read(request, given)
        response = asked.response(await service.transcribe(request, asked), is_openai=is_openai)
        metrics.audio_s.inc(asked.prepared.duration_s)
        return response

    @app.post("/transcribe", summary="Raw bytes of any container, multipart `file`, or JSON with `audio_url`")
    async def transcribe(
        request: Request, language: str | None = None, response_format: str | None = None,
        stream: Literal["denoise"] | None = None, max_steps: str | None = None,
    ) -> Response:  # fmt: skip
        asked = {"language": language, "response_format": response_format, "max_steps": max_steps}
        given = {name: value for name, value in asked.items() if value is not None}
        if stream:
            events = service.stream(await service.read(request, given))
            return StreamingResponse(events, media_type="text/event-stream")
        return await answer(request, given, is_openai=False)

    @app.post("/v1/audio/transcriptions", summary="As OpenAI's client sends it")
    async def transcriptions(request: Request) -> Response:
        return await answer(request, {}, is_openai=True)

    return app


def _error(status: int, message: str, code: str | None, headers: Any = None) -> JSONResponse:
    """Write an error as OpenAI's client reads it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": None, "code": code}}, status, headers=dict(headers or {})
    )
