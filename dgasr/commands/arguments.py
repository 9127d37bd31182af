"""Arguments that several commands take alike. A setting's default and choices stay with the dataclass that owns it."""

import argparse
from dataclasses import fields
from typing import get_args, get_type_hints

from dgasr.stages.engine_config import EngineConfig

DEFAULTS = EngineConfig()

KINDS = get_type_hints(EngineConfig)


def positive_int(text: str) -> int:
    """Read an argument that counts something."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def batch_size(text: str) -> int:
    """Read how many segments go at once; `auto` is 0, as in `EngineConfig`."""
    return 0 if text == "auto" else positive_int(text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the model and how it decodes."""
    group = parser.add_argument_group("model")

    def add(flag: str, what: str, **options: object) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        group.add_argument(flag, default=getattr(DEFAULTS, name), help=what, **options)  # type: ignore[arg-type]

    add("--model", "preset or model folder (default: %(default)s)", metavar="tiny|full|DIR")
    add("--adapter", "projector and LoRA to put on the model", metavar="FILE|DIR|HUB_ID")
    add("--merge-adapter", "add LoRA into the weights: faster, and another recipe", action="store_true")
    add("--compile", "let torch compile the decoder: worth it for hours of audio, another recipe", action="store_true")
    add("--quantize", "half the memory, another recipe (default: %(default)s)", choices=get_args(KINDS["quantize"]))
    add("--cuda-graphs", "replay recorded steps on a GPU: for few segments at once, same text", action="store_true")
    add("--max-steps", "denoising steps (default: %(default)s)", metavar="N", type=positive_int)
    start = "what denoising starts from: noise, or what CTC hears (default: %(default)s)"
    add("--seed-canvas", start, choices=get_args(KINDS["seed_canvas"]))
    choice = "joint: take CTC's text where two likelihoods prefer it; none: never (default: %(default)s)"
    add("--rescore", choice, choices=get_args(KINDS["rescore"]))
    add("--batch-size", "segments at once; auto: what fits (default: %(default)s)", metavar="N|auto", type=batch_size)
    add("--device", "default: %(default)s", metavar="auto|cpu|cuda|cuda:N")
    add("--language", "language that is spoken (default: the model's own)", metavar="CODE")


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """Make settings of an engine from what `add_model_arguments` added."""
    return EngineConfig(**{field.name: getattr(options, field.name) for field in fields(EngineConfig)})
