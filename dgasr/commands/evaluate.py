"""`dgasr evaluate`: a manifest with reference texts in, error rates and speed out."""

import argparse
import json
import sys
from pathlib import Path

from dgasr.commands.arguments import add_model_arguments
from dgasr.errors import ConfigError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("evaluate", help="score a model on a manifest: WER or CER, speed, word times")
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help="JSONL: audio_filepath, duration, text, language"
    )
    parser.add_argument("--normalizer", choices=("whisper", "basic"), default="basic", help="default: basic")
    parser.add_argument(
        "--metric", choices=("wer", "cer"), default="wer", help="what the table leads with (default: wer)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score and print."""
    from tqdm import tqdm

    from dgasr.training.manifests import read_manifest

    read_manifest(options.manifest)  # refused now, and not after a large model was loaded
    if options.json and not options.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no such folder. Make it, or name another file.")

    from dgasr import load
    from dgasr.evaluator import evaluate

    model = load(options.model, adapter=options.adapter, device=options.device)
    with tqdm(desc="reading and decoding", unit=" utterances", disable=not sys.stderr.isatty(), leave=False) as bar:
        evaluation = evaluate(
            options.manifest,
            model,
            max_steps=options.max_steps,
            normalizer=options.normalizer,
            metric=options.metric,
            language=options.language,
            batch_size=options.batch_size,
            on_utterance=bar.update,
        )
    sys.stdout.write(evaluation.table().rstrip("\n") + "\n")
    if options.json:
        options.json.write_text(json.dumps(evaluation.to_json(), indent=2) + "\n", encoding="utf-8")
    return 0
