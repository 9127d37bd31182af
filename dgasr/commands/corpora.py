"""`dgasr corpora`: the manifests and recordings that the bundled model is trained and judged on."""

import argparse
import sys
from pathlib import Path

from dgasr.commands.arguments import check_output_folder, finite_float, positive_int


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("corpora", help="make the corpora of the bundled model from single spoken digits")
    parser.add_argument("out", type=Path, metavar="FOLDER", help="where manifests and audio go")
    parser.add_argument("--fsdd", type=Path, required=True, metavar="DIR", help="the Free Spoken Digit Dataset")
    parser.add_argument("--utterances", type=positive_int, metavar="N", help="connected-digit utterances per corpus")
    parser.add_argument("--max-digits", type=positive_int, metavar="N", help="most digits in an utterance")
    parser.add_argument(
        "--noise-db",
        type=finite_float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="room noise under connected digits, dBFS",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="equal seeds give equal files")
    parser.add_argument("--no-voices", action="store_true", help="leave out the synthetic voices (espeak-ng, flite)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the corpora, one line for each."""
    from dgasr.training.corpora import ConnectedDigitsConfig, SyntheticVoicesConfig, make_corpora

    check_output_folder("corpora", options.out)
    low, high = options.noise_db or (None, None)
    given = {
        "num_utterances": options.utterances, "max_digits": options.max_digits, "seed": options.seed,
        "min_noise_db": low, "max_noise_db": high,
    }  # fmt: skip
    connected = ConnectedDigitsConfig(**{name: value for name, value in given.items() if value is not None})
    voices = None if options.no_voices else SyntheticVoicesConfig()
    for path, num_utterances in make_corpora(options.fsdd, options.out, connected, voices):
        sys.stdout.write(f"{path}  {num_utterances} utterances\n")
        sys.stdout.flush()
    return 0
