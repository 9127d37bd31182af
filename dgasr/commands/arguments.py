"""Arguments that several commands take alike. Each default of a setting stays with the dataclass that owns it."""

import argparse


def positive_int(text: str) -> int:
    """Read an argument that counts something."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the model and how it decodes."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default="tiny", metavar="tiny|full|DIR", help="preset or model folder (default: tiny)"
    )
    group.add_argument("--adapter", metavar="FILE|DIR|HUB_ID", help="projector and LoRA to put on the model")
    group.add_argument("--max-steps", type=positive_int, default=8, metavar="N", help="denoising steps (default: 8)")
    group.add_argument(
        "--batch-size", type=positive_int, default=16, metavar="N", help="segments at once (default: 16)"
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    group.add_argument("--language", metavar="CODE", help="language that is spoken (default: the model's own)")
