"""`dgasr evaluate`: a manifest with reference texts in, error rates and speed out."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import add_model_arguments, check_output_file, engine_config

if TYPE_CHECKING:
    from dgasr.model.asr import AsrModel


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
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--path", choices=("diffusion", "ctc", "ar"), default="diffusion",
        help="the model's way to text: denoising, the likeliest CTC labels, token after token (default: diffusion)",
    )  # fmt: skip
    ways.add_argument(
        "--compare", action="store_true",
        help="all ways below each other, in Markdown, diffusion at 1, 2, 4, 8, 16 steps; --metric, --max-steps "
        "and --seed-canvas do not apply",
    )  # fmt: skip
    ways.add_argument(
        "--compare-seeds", action="store_true",
        help="canvases of noise and canvases seeded by CTC below each other, in Markdown, at 8, 4, 2 and 1 steps, with "
        "paired differences to 8 steps from noise; --metric, --max-steps and --seed-canvas do not apply",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score and print."""
    from dgasr.training.manifests import read_manifest

    read_manifest(options.manifest)  # refused now, and not after a large model was loaded
    check_output_file("--json", options.json)

    from dgasr.stages.engine import load_model

    model = load_model(engine_config(options))
    table, figures = (_compare if options.compare or options.compare_seeds else _score)(options, model)
    sys.stdout.write(table.rstrip("\n") + "\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _score(options: argparse.Namespace, model: "AsrModel") -> tuple[str, dict[str, Any]]:
    from tqdm import tqdm

    from dgasr.evaluator import evaluate

    with tqdm(desc="reading and decoding", unit=" utterances", disable=not sys.stderr.isatty(), leave=False) as bar:
        evaluation = evaluate(
            options.manifest,
            model,
            max_steps=options.max_steps,
            seed_canvas=options.seed_canvas,
            rescore=options.rescore,
            records_steps=options.cuda_graphs,
            normalizer=options.normalizer,
            metric=options.metric,
            language=options.language,
            batch_size=options.batch_size,
            path=options.path,
            on_utterance=bar.update,
        )
    return evaluation.table(), evaluation.to_json()


def _compare(options: argparse.Namespace, model: "AsrModel") -> tuple[str, list[dict[str, Any]]]:
    from tqdm import tqdm

    from dgasr.evaluation.seeds import compare_with
    from dgasr.evaluation.tables import seeds_table, steps_table
    from dgasr.evaluator import PATH_WAYS, SEED_WAYS, evaluate_ways

    evaluations = evaluate_ways(
        options.manifest,
        model,
        SEED_WAYS if options.compare_seeds else PATH_WAYS,
        normalizer=options.normalizer,
        language=options.language,
        batch_size=options.batch_size,
    )
    first, *others = tqdm(evaluations, desc="comparing", unit=" ways", disable=not sys.stderr.isatty(), leave=False)
    if options.compare_seeds:
        figures = compare_with(first, others)
        return seeds_table(figures), figures
    figures = [evaluation.to_json() for evaluation in (first, *others)]
    return steps_table(figures), figures
