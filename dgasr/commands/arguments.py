"""Arguments that several commands take alike. A setting's default and choices stay with the dataclass that owns it."""

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from dgasr.errors import ConfigError
from dgasr.model.identity import default_model
from dgasr.stages.engine import EngineConfig, Limits

DEFAULTS = EngineConfig()

KINDS = get_type_hints(EngineConfig)

LIMITS: dict[str, type] = {field.name: type(field.default) for field in fields(Limits)}
"""Limits of files, and the kind of number that each is."""


def positive_int(text: str, least: int = 1) -> int:
    """Read an argument that counts something."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, not {value}")
    return value


def natural_int(text: str) -> int:
    """Read an argument that counts something, perhaps nothing."""
    return positive_int(text, least=0)


def positive_ints(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them, each of which counts something."""
    return tuple(positive_int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def finite_float(text: str) -> float:
    """Read a number that may be calculated with."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be finite, not {text}")
    return value


def given_uri(text: str) -> str:
    """Read a source or a lake; what would otherwise be taken for a folder that nobody means is refused."""
    if not text:
        raise argparse.ArgumentTypeError("is empty. Is a variable of the shell not set? `.` is this folder")
    if text.startswith("s3:/") and not text.startswith("s3://"):
        raise argparse.ArgumentTypeError(f"{text!r} lacks a slash. Write s3://bucket/prefix")
    return text


def check_output_file(flag: str, path: Path | None) -> None:
    """Refuse a file that could not be written, before the work that leads to it; `None` is none.

    ConfigError where it is a folder, lies in none, or may not be written.
    """
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise ConfigError(f"{flag} {path}: is a folder. Name a file in it.")
    if not folder.is_dir():
        raise ConfigError(f"{flag} {path}: there is no such folder. Make it, or name another file.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{flag} {path}: may not be written. Change permissions, or name another file.")


def check_output_folder(flag: str, path: Path) -> None:
    """Refuse a folder that could not be written to, before the work that leads to it; it need not be there yet.

    ConfigError where it or a folder above it is a file, or may not be written to.
    """
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag} {path}: {existing} is no folder, or may not be written to. Name another folder.")


def batch_size(text: str) -> int:
    """Read how many segments go at once; `auto` is 0, as in `EngineConfig`."""
    return 0 if text == "auto" else positive_int(text)


def channel_or_track(text: str) -> str | int:
    """Read what is made of channels or tracks: a word, or the number of one."""
    return natural_int(text) if text.lstrip("-").isdecimal() else text


def limit(text: str) -> tuple[str, float]:
    """Read a limit of files, `NAME=NUMBER`."""
    name, _, number = text.partition("=")
    if name not in LIMITS:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=NUMBER, with one of {', '.join(LIMITS)}")
    return name, LIMITS[name](finite_float(number))


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses which of a file's audio is read."""
    add = parser.add_argument_group("reading").add_argument
    channels = "mix them, transcribe each, or one alone, from 0 (default: %(default)s); another recipe"
    add("--channels", type=channel_or_track, default=DEFAULTS.channels, metavar="mix|each|N", help=channels)
    track = "audio track with most sound, each, or one alone, from 0 (default: %(default)s); another recipe"
    add("--track", type=channel_or_track, default=DEFAULTS.track, metavar="auto|each|N", help=track)
    most = f"what a file may take before it is rejected: {', '.join(LIMITS)}; may be given several times"
    add("--limit", type=limit, action="append", default=[], dest="limits", metavar="NAME=NUMBER", help=most)


def add_model_arguments(
    parser: argparse.ArgumentParser, max_steps: Callable[[str], int | tuple[int, ...]] = positive_int
) -> None:
    """Add what chooses the model and how it decodes; `max_steps` reads one number of steps, or several."""
    group = parser.add_argument_group("model")

    def add(flag: str, what: str, **options: object) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        group.add_argument(flag, default=getattr(DEFAULTS, name), help=what, **options)  # type: ignore[arg-type]

    own = "preset or model folder (default: DGASR_MODEL, or base; now %(default)s)"
    group.add_argument("--model", default=default_model(), metavar="base|tiny|full|DIR", help=own)
    add("--adapter", "projector and LoRA to put on the model", metavar="FILE|DIR|HUB_ID")
    merged, compiled = "add LoRA into the weights: faster", "let torch compile the decoder: minutes, then faster"
    yes_or_no = argparse.BooleanOptionalAction
    add("--merge-adapter", f"{merged}; said either way, another recipe (default: on CUDA)", action=yes_or_no)
    add(
        "--compile",
        f"{compiled}; said either way, another recipe (default: pretrained, on CUDA)",
        action=yes_or_no,
    )
    add("--quantize", "half the memory, another recipe (default: %(default)s)", choices=get_args(KINDS["quantize"]))
    counts = "N" if max_steps is positive_int else "N|N,N,…"
    add(
        "--max-steps",
        "denoising steps at most (default: the model's own: tiny and full 8, base 2)",
        metavar=counts,
        type=max_steps,
    )
    choice = "joint: take CTC's text where two likelihoods prefer it; none: never (default: %(default)s)"
    add("--rescore", choice, choices=get_args(KINDS["rescore"]))
    pauses = "what tells pauses: a speech model, or loudness alone (default: %(default)s)"
    add("--segmentation", pauses, choices=get_args(KINDS["segmentation"]))
    add("--batch-size", "segments at once; auto: what fits (default: %(default)s)", metavar="N|auto", type=batch_size)
    add("--device", "default: %(default)s", metavar="auto|cpu|cuda|cuda:N")
    add("--language", "language that is spoken (default: the model's own)", metavar="CODE")


def progress(what: str, unit: str, total: int | None = None) -> Any:
    """Make a progress bar that is shown where a person looks; `B` counts bytes."""
    from tqdm import tqdm

    is_hidden = not sys.stderr.isatty()
    return tqdm(desc=what, total=total, unit=unit, unit_scale=unit == "B", disable=is_hidden, leave=False)


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """Make settings of an engine from what the functions above added."""
    given = {field.name: getattr(options, field.name) for field in fields(EngineConfig) if hasattr(options, field.name)}
    return EngineConfig(**given | {"limits": Limits(**dict(given.get("limits", ())))})
