"""`dgasr serve`: one model behind HTTP, requests joined in one changing batch."""

import argparse
import atexit
import math
import os
import secrets
import sys
import tempfile
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import (
    add_model_arguments,
    add_reading_arguments,
    engine_config,
    finite_float,
    given_uri,
    names,
    positive_int,
)
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from dgasr.serving.live import Watch, Way
    from dgasr.serving.service import Service, ServingConfig
    from dgasr.stages.engine import EngineConfig


def step_counts(own: int) -> tuple[int, ...]:
    """Give the denoising steps that a request may ask for; the model's own number, the default, comes last."""
    return (*sorted({1, 2, 4, 8, 16} - {own}), own)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("serve", help="serve the model over HTTP, also to OpenAI's client")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, metavar="N", help="0 for any that is free (default: %(default)s)")
    size = "of an upload, bytes; 413 (default: %(default)s)"
    add("--max-bytes", type=positive_int, default=200_000_000, metavar="N", help=size)
    waiting = "segments that may wait; 429 (default: %(default)s)"
    add("--max-waiting", type=positive_int, default=1000, metavar="N", help=waiting)
    add("--timeout", type=finite_float, default=300.0, metavar="S", help="of a request, s; 504 (default: 300)")
    add("--processes", type=positive_int, default=2, metavar="N", help="that read audio side by side (default: 2)")
    token = "environment variable with the token that clients must send (default: none)"
    add("--token-variable", metavar="NAME", help=token)
    hosts = "hosts that an `audio_url` may name, `*` for all that are public (default: none)"
    add("--allow-url", type=names, default=(), metavar="HOST,…", help=hosts)
    add("--page", action="store_true", help="also serve a page, on /page (pip install 'dgasr[page]'; default: off)")
    add("--lake", type=given_uri, metavar="LAKE", help="of --page: search and hear what this lake holds")
    add_reading_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Load the model, and serve until a signal ends it; requests that were taken are answered first."""
    import uvicorn

    class Server(uvicorn.Server):
        """Says where it listens, once it does."""

        async def startup(self, sockets: list[Any] | None = None) -> None:
            await super().startup(sockets)
            for own in self.servers:
                host, port = own.sockets[0].getsockname()[:2]
                sys.stderr.write(f"dgasr serves on http://{host}:{port}; /docs there tells the rest.\n")

    config = uvicorn.Config(
        build(options), host=options.host, port=options.port, log_level="warning",
        timeout_graceful_shutdown=int(options.timeout) + 5,
    )  # fmt: skip
    Server(config).run()
    return 0


def build(options: argparse.Namespace) -> Any:
    """Load the model and build the app."""
    from dgasr.serving.app import create_app
    from dgasr.serving.service import ServingConfig

    if options.lake and not options.page:
        raise ConfigError("--lake: is shown on the page. Give --page.")
    token = os.environ.get(options.token_variable or "", "")
    if options.token_variable and not token:
        raise ConfigError(f"--token-variable {options.token_variable}: no such variable, or an empty one. Set it.")
    limits = ServingConfig(
        max_bytes=options.max_bytes, timeout_s=options.timeout, token=token, allowed_hosts=options.allow_url
    )
    waiting, processes = options.max_waiting, options.processes
    service = start_service(engine_config(options), limits, max_waiting=waiting, processes=processes)
    app = create_app(service)
    return _with_page(app, service, options, token) if options.page else app


def start_service(config: "EngineConfig", limits: "ServingConfig", *, max_waiting: int, processes: int) -> "Service":
    """Load a model, and start what transcribes, with a queue of `max_waiting` segments, and processes that read audio.

    Raises:
        ConfigError: no such model.
    """
    from dataclasses import replace

    from dgasr.serving.live import LiveTranscriber
    from dgasr.serving.prepare import Preparer
    from dgasr.serving.service import Service
    from dgasr.stages.engine import load_model, recipe_for
    from dgasr.transcriber import Transcriber
    from dgasr.transcriber.loading import fitting_batch_size

    model = load_model(config)
    languages = model.config.languages if config.language is None else (config.language,)
    first = recipe_for(model, replace(config, language=languages[0]))
    batch_size = config.batch_size or fitting_batch_size(model, first)

    ends = set(model.config.prompt.end_text_ids)

    # Each holds the caches of a batch: as many as there are languages, and one for another number of steps.
    @lru_cache(maxsize=len(languages) + 1)
    def transcriber_of(way: "Way", watch: "Watch") -> Transcriber:
        recipe = recipe_for(model, replace(config, language=way.language, max_steps=way.max_steps))
        return Transcriber(model, recipe, batch_size, is_live=True, watch=watch)

    def spell(ids: "np.ndarray", log_probabilities: "np.ndarray") -> list[tuple[str, float]]:
        text = list(takewhile(lambda own: own[0] not in ends, zip(ids.tolist(), log_probabilities, strict=True)))
        return [(model.tokenizer.decode([token]), round(math.exp(likely), 3)) for token, likely in text]

    live = LiveTranscriber(lambda *asked: transcriber_of(*asked), max_waiting)
    preparer = Preparer(first, processes)
    return Service(
        model.identity.name, live, preparer, languages, step_counts(first.decode.max_steps), spell, limits
    )  # fmt: skip


def _with_page(app: Any, service: "Service", options: argparse.Namespace, token: str) -> Any:
    """Mount the page; where there is a token, it is the password that the page asks for."""
    try:
        import gradio
    except ImportError as error:
        raise ConfigError(f"--page: Gradio is not installed ({error}). Run `pip install 'dgasr[page]'`.") from error
    from dgasr.serving.app import PAGE
    from dgasr.serving.page import STYLE, THEME, build_page

    lake, folder = None, tempfile.TemporaryDirectory(prefix="dgasr-lake-")
    if options.lake:
        from dgasr.lake.location import lake_uri_of
        from dgasr.serving.lake_tab import LakeTab

        lake = LakeTab(lake_uri_of(options.lake), Path(folder.name), PAGE).build
    atexit.register(folder.cleanup)
    page = build_page(service.watch, service.languages, service.step_counts, PAGE, lake)
    login = {
        "auth": lambda _, password: secrets.compare_digest(password.encode(), token.encode()),
        "auth_message": "Any name; the password is the token of this server.",
    }
    return gradio.mount_gradio_app(
        app, page, PAGE, css=STYLE, theme=THEME, ssr_mode=False, footer_links=[], allowed_paths=[folder.name],
        max_file_size=options.max_bytes, **(login if token else {}),
    )  # fmt: skip
