"""`dgasr serve`: one model behind HTTP, requests joined in one changing batch."""

import argparse
import math
import os
import sys
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import (
    add_model_arguments,
    add_reading_arguments,
    engine_config,
    finite_float,
    names,
    positive_int,
)
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from dgasr.serving.live import Watch


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("serve", help="serve the model over HTTP, also to OpenAI's client")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, metavar="N", help="0 for any that is free (default: %(default)s)")
    add("--max-bytes", type=positive_int, default=200_000_000, metavar="N", help="of an upload; 413 (default: 200 MB)")
    add(
        "--max-waiting",
        type=positive_int,
        default=1000,
        metavar="N",
        help="segments that may wait; 429 (default: 1000)",
    )
    add("--timeout", type=finite_float, default=300.0, metavar="S", help="of a request; 504 (default: 300)")
    add("--processes", type=positive_int, default=2, metavar="N", help="that read audio side by side (default: 2)")
    add("--token-variable", metavar="NAME", help="environment variable with the token that clients must send")
    add(
        "--allow-url", type=names, default=(), metavar="HOST,…",
        help="hosts that an `audio_url` may name, `*` for all that are public (default: none)",
    )  # fmt: skip
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
    """Load the model and build the app.

    Raises:
        ConfigError: no such model, or no token where one was named.
    """
    from dataclasses import replace

    from dgasr.serving.app import ServingConfig, create_app
    from dgasr.serving.live import LiveTranscriber
    from dgasr.serving.prepare import Preparer
    from dgasr.stages.engine import load_model, recipe_for
    from dgasr.transcriber import Transcriber
    from dgasr.transcriber.memory import fitting_batch_size

    token = os.environ.get(options.token_variable or "", "")
    if options.token_variable and not token:
        raise ConfigError(f"--token-variable {options.token_variable}: no such variable, or an empty one. Set it.")
    config = engine_config(options)
    model = load_model(config)
    languages = model.config.languages if config.language is None else (config.language,)
    first = recipe_for(model, replace(config, language=languages[0]))
    batch_size = config.batch_size or fitting_batch_size(model, first)

    ends = set(model.config.prompt.end_text_ids)

    known: dict[str, Transcriber] = {}

    def transcriber_of(language: str, watch: "Watch") -> Transcriber:
        if language not in known:
            recipe = recipe_for(model, replace(config, language=language))
            known[language] = Transcriber(model, recipe, batch_size, is_live=True, watch=watch)
        return known[language]

    def spell(ids: "np.ndarray", log_probabilities: "np.ndarray") -> list[tuple[str, float]]:
        text = list(takewhile(lambda own: own[0] not in ends, zip(ids.tolist(), log_probabilities, strict=True)))
        return [(model.tokenizer.decode([token]), round(math.exp(likely), 3)) for token, likely in text]

    limits = ServingConfig(
        max_bytes=options.max_bytes, timeout_s=options.timeout, token=token, allowed_hosts=options.allow_url
    )  # fmt: skip
    live = LiveTranscriber(transcriber_of, options.max_waiting)
    return create_app(live, Preparer(first, options.processes), languages, spell, model.identity.name, limits)
