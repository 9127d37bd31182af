"""`dgasr evaluate`: score a model on a manifest with reference texts, alone or beside faster-whisper."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import add_model_arguments, check_output_file, engine_config, names, positive_int
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.baseline import Baseline
    from dgasr.evaluation.report import Evaluation
    from dgasr.evaluator import EvaluationConfig
    from dgasr.training.manifests import Selection, Utterance


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("evaluate", help="score a model on a manifest: WER or CER, speed, word times")
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help="JSONL: audio_filepath, duration, text, language"
    )
    weights = parser.add_argument_group("a training run, in place of --model and --adapter")
    weights.add_argument("--run-name", metavar="NAME", help="of `dgasr train`: score what it came to")
    weights.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: runs)"
    )
    weights.add_argument(
        "--ckpt", default="final", metavar="final|best|STEP", help="which of its weights (default: final)"
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
    chosen = parser.add_argument_group("utterances")
    chosen.add_argument("--languages", type=names, default=(), metavar="CODE,…", help="only these languages' rows")
    chosen.add_argument("--sets", type=names, default=(), metavar="NAME,…", help="only these sets (field `set`)")
    chosen.add_argument(
        "--limit", type=positive_int, default=0, metavar="N", help="at most N utterances, spread over the sets"
    )
    chosen.add_argument("--skip-missing", action="store_true", help="leave out utterances whose audio is not there")
    parser.add_argument(
        "--baseline", metavar="faster-whisper:DIR",
        help="also score faster-whisper (int8, greedy, as many threads) on the same utterances, side by side; "
        "--model faster-whisper:DIR scores it alone, with word times and confidence",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument(
        "--worst", type=positive_int, metavar="N", help="also show the N utterances with most errors, word by word"
    )
    parser.add_argument(
        "--worst-file",
        type=Path,
        metavar="FILE",
        help="where they go: .tsv for a table, else Markdown (default: shown)",
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score and print.

    Raises:
        ConfigError: flags that do not go together, or that name what is not there; before any work.
    """
    from dgasr.training.manifests import Selection, missing_files, read_manifest, select_utterances

    if options.run_name:
        options.model, options.adapter = _weights_of(options)
    selection = Selection(
        languages=options.languages, sets=options.sets, limit=options.limit, skip_missing=options.skip_missing
    )
    # refused now, and not after a large model was loaded
    listed = read_manifest(options.manifest)
    utterances = select_utterances(listed, selection)
    missing = missing_files(listed if options.skip_missing else utterances)
    if missing and not options.skip_missing:
        raise ConfigError(
            f"{options.manifest}: {len(missing)} audio files are not there. Bring them, or score the rest with "
            "--skip-missing:\n" + "\n".join(missing)
        )
    if missing:
        sys.stderr.write(f"left out, since they are not there: {len(missing)} audio files\n")
    check_output_file("--json", options.json)
    check_output_file("--worst-file", options.worst_file)
    if options.worst_file and not options.worst:
        raise ConfigError(f"--worst-file {options.worst_file}: say how many utterances go there, with --worst N.")
    if options.compare and (options.baseline or options.worst):
        raise ConfigError("--compare stands alone. Leave out --baseline and --worst.")
    figures: Any
    if options.compare:
        table, figures = _compare(options, selection)
    else:
        table, figures = _score(options, selection, utterances)
    sys.stdout.write(table.rstrip("\n") + "\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _weights_of(options: argparse.Namespace) -> tuple[str, str | None]:
    """Find the model, and the adapter where there is one, that a training run came to."""
    from dgasr.model.identity import ADAPTER_FILES, CHECKPOINTS, RUN_FILE

    folder = options.runs / options.run_name
    settings = folder / RUN_FILE
    if not settings.is_file():
        raise ConfigError(f"--run-name {options.run_name}: {folder} holds no run. Give --runs, or train one.")
    is_step = options.ckpt.isdecimal()
    weights = folder / (f"{CHECKPOINTS}/checkpoint-{options.ckpt}" if is_step else options.ckpt)
    if not weights.is_dir():
        known = [path.name for path in sorted(folder.iterdir()) if path.name in ("final", "best")]
        known += [path.name.split("-")[1] for path in sorted(folder.glob(f"{CHECKPOINTS}/checkpoint-*"))]
        raise ConfigError(f"--ckpt {options.ckpt}: {folder} has {', '.join(known) or 'no weights yet'}.")
    if not (weights / ADAPTER_FILES[0]).is_file():
        return str(weights), None
    return str(json.loads(settings.read_text(encoding="utf-8"))["base"]), str(weights)


def _score(
    options: argparse.Namespace, selection: "Selection", utterances: "list[Utterance]"
) -> tuple[str, dict[str, Any]]:
    from dgasr.evaluation.tables import figures_table

    # Loaded before anything is timed, so that a folder that cannot be used is refused before an hour of decoding.
    baseline = _load_baseline(options.baseline, has_words=False) if options.baseline else None
    if options.model.startswith("faster-whisper:"):
        evaluation = _by_baseline(options, _load_baseline(options.model, has_words=True), utterances)
    else:
        evaluation = _by_model(options, selection)
    other = _by_baseline(options, baseline, utterances) if baseline else None
    figures = evaluation.to_json_beside(other, _num_threads()) if other else evaluation.to_json()
    table = figures_table(figures)
    return (table + _worst(options, evaluation, other) if options.worst else table), figures


def _by_model(options: argparse.Namespace, selection: "Selection") -> "Evaluation":
    from dgasr.evaluator import evaluate
    from dgasr.stages.engine import load_model

    model, config = load_model(engine_config(options)), _config(options, selection)
    with _progress("reading and decoding") as bar:
        return evaluate(options.manifest, model, config, options.batch_size, bar.update)


def _config(options: argparse.Namespace, selection: "Selection") -> "EvaluationConfig":
    from dgasr.evaluator import EvaluationConfig

    return EvaluationConfig(
        normalizer=options.normalizer, metric=options.metric, max_steps=options.max_steps, language=options.language,
        path=options.path, seed_canvas=options.seed_canvas, rescore=options.rescore,
        segmentation=options.segmentation, selection=selection,
    )  # fmt: skip


def _by_baseline(options: argparse.Namespace, baseline: "Baseline", utterances: "list[Utterance]") -> "Evaluation":
    from dgasr.baseline import evaluate_baseline

    with _progress("faster-whisper") as bar:
        return evaluate_baseline(
            utterances,
            baseline,
            normalizer=options.normalizer,
            metric=options.metric,
            language=options.language,
            on_utterance=bar.update,
        )


def _load_baseline(name: str, *, has_words: bool) -> "Baseline":
    from dgasr.baseline import load_baseline

    return load_baseline(name, num_threads=_num_threads(), has_words=has_words)


def _num_threads() -> int:
    """Threads that torch gives the model (OMP_NUM_THREADS, else one a core), and the baseline as well."""
    import torch

    return torch.get_num_threads()


def _worst(options: argparse.Namespace, evaluation: "Evaluation", other: "Evaluation | None") -> str:
    """Write the utterances with most errors to their file, or give them as text."""
    from dgasr.evaluation.worst import worst_markdown, worst_tsv, worst_utterances

    rows = worst_utterances(
        evaluation.utterances, options.normalizer, options.worst, other.utterances if other else None
    )
    is_tsv = options.worst_file is not None and options.worst_file.suffix == ".tsv"
    text = worst_tsv(rows) if is_tsv else worst_markdown(rows)
    if options.worst_file is None:
        return f"\n\n{text}"
    options.worst_file.write_text(text, encoding="utf-8")
    return ""


def _progress(what: str) -> Any:
    from tqdm import tqdm

    return tqdm(desc=what, unit=" utterances", disable=not sys.stderr.isatty(), leave=False)


def _compare(options: argparse.Namespace, selection: "Selection") -> tuple[str, list[dict[str, Any]]]:
    from tqdm import tqdm

    from dgasr.evaluation.tables import steps_table
    from dgasr.evaluator import WAYS, evaluate_ways
    from dgasr.stages.engine import load_model

    model = load_model(engine_config(options))
    evaluations = evaluate_ways(options.manifest, model, _config(options, selection), options.batch_size)
    bar = tqdm(evaluations, "comparing", len(WAYS), unit=" ways", disable=not sys.stderr.isatty(), leave=False)
    figures = [evaluation.to_json() for evaluation in bar]
    return steps_table(figures), figures
