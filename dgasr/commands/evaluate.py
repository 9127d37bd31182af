"""`dgasr evaluate`: score a model on a manifest with reference texts, alone or beside other systems."""

import argparse
import json
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import (
    add_model_arguments,
    check_output_file,
    engine_config,
    given_uri,
    names,
    natural_int,
    positive_int,
    positive_ints,
    progress,
)
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.baseline import Baseline
    from dgasr.evaluation.report import Evaluation
    from dgasr.evaluator import EvaluationConfig
    from dgasr.training.manifests import Selection, Utterance

WORST_ON_PAGE = 20
"""Utterances with most errors on the page, unless --worst says how many."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("evaluate", help="score a model on a manifest: WER or CER, speed, word times")
    parser.add_argument(
        "manifest", type=Path, metavar="MANIFEST", help="JSONL: audio_filepath, duration, text, language"
    )
    weights = parser.add_argument_group("a training run, in place of --model and --adapter")
    weights.add_argument(
        "--run-name", metavar="NAME", help="of `dgasr train`: score what it came to (default: --model)"
    )
    weights.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: runs)"
    )
    weights.add_argument(
        "--ckpt", default="final", metavar="final|best|STEP|DIR", help="which of its weights (default: final)"
    )
    parser.add_argument(
        "--normalizer",
        choices=("whisper", "basic", "leaderboard"),
        default="basic",
        help="what is no error: as Whisper's paper has it; case and punctuation alone; as the Open ASR "
        "Leaderboard has it (default: basic)",
    )
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
    chosen.add_argument(
        "--languages", type=names, default=(), metavar="CODE,…", help="only these languages' rows (default: all)"
    )
    chosen.add_argument(
        "--subset", type=names, default=(), metavar="NAME,…",
        help="only these sets: the field `set`, or its last word, such as test.clean (default: all)",
    )  # fmt: skip
    chosen.add_argument(
        "--limit",
        type=positive_int,
        default=0,
        metavar="N",
        help="at most N utterances, spread over the sets (default: all)",
    )
    chosen.add_argument("--skip-missing", action="store_true", help="leave out utterances whose audio is not there")
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument(
        "--baseline", metavar="faster-whisper:DIR|whisper:DIR|pocketsphinx",
        help="also score faster-whisper (int8, greedy, as many threads), transformers' Whisper (float32, greedy) or "
        "pocketsphinx on the same utterances, beside it; with --model in place of --baseline it is scored alone, "
        "with word times and confidence where it has them (default: none)",
    )  # fmt: skip
    beside.add_argument(
        "--against", type=Path, metavar="FILE",
        help="another run on the same utterances, as --json wrote it: paired bootstrap of both error rates "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--latency", type=natural_int, default=20, metavar="N",
        help="transcribe N utterances once more, one by one, for p50 and p95 (default: 20; 0: none)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with plots and audio (default: none)"
    )
    parser.add_argument("--lake", type=given_uri, metavar="LAKE", help="also write a row of `evaluations` there")
    parser.add_argument(
        "--worst", type=positive_int, metavar="N", help="also show the N utterances with most errors, word by word"
    )
    parser.add_argument(
        "--worst-file",
        type=Path,
        metavar="FILE",
        help="where they go: .tsv for a table, else Markdown (default: shown)",
    )
    add_model_arguments(parser, max_steps=positive_ints)
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
        languages=options.languages, sets=options.subset, limit=options.limit, skip_missing=options.skip_missing
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
    _check(options)
    step_counts = options.max_steps if isinstance(options.max_steps, tuple) else (options.max_steps,)
    options.max_steps = max(step_counts)
    figures: Any
    if options.compare:
        table, figures = _compare(options, selection)
    else:
        table, figures = _score(options, selection, utterances, step_counts)
    sys.stdout.write(table.rstrip("\n") + "\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what could not be written, or does not go together."""
    from dgasr.baseline import is_baseline

    for flag in ("--json", "--html", "--worst-file"):
        check_output_file(flag, getattr(options, flag.removeprefix("--").replace("-", "_")))
    if options.worst_file and not options.worst:
        raise ConfigError(f"--worst-file {options.worst_file}: say how many utterances go there, with --worst N.")
    if options.compare and (options.baseline or options.against or options.worst or options.html or options.lake):
        raise ConfigError("--compare stands alone. Leave out --baseline, --against, --worst, --html and --lake.")
    if options.lake and is_baseline(options.model):
        raise ConfigError(f"--lake: {options.model} has no recipe to write there. Leave it out.")


def _weights_of(options: argparse.Namespace) -> tuple[str, str | None]:
    """Find the model, and the adapter where there is one, that a training run came to."""
    from dgasr.model.identity import ADAPTER_FILES, CHECKPOINTS, RUN_FILE

    folder = options.runs / options.run_name
    settings = folder / RUN_FILE
    if not settings.is_file():
        raise ConfigError(f"--run-name {options.run_name}: {folder} holds no run. Give --runs, or train one.")
    is_step = options.ckpt.isdecimal()
    weights = folder / (f"{CHECKPOINTS}/checkpoint-{options.ckpt}" if is_step else options.ckpt)
    if not is_step and options.ckpt not in ("final", "best"):
        weights = Path(options.ckpt)
    if not weights.is_dir():
        known = [path.name for path in sorted(folder.iterdir()) if path.name in ("final", "best")]
        known += [path.name.split("-")[1] for path in sorted(folder.glob(f"{CHECKPOINTS}/checkpoint-*"))]
        raise ConfigError(f"--ckpt {options.ckpt}: {folder} has {', '.join(known) or 'no weights yet'}.")
    if not (weights / ADAPTER_FILES[0]).is_file():
        return str(weights), None
    return str(json.loads(settings.read_text(encoding="utf-8"))["base"]), str(weights)


def _score(
    options: argparse.Namespace, selection: "Selection", utterances: "list[Utterance]", step_counts: tuple[int, ...]
) -> tuple[str, dict[str, Any]]:
    from dgasr.baseline import is_baseline
    from dgasr.evaluation.runs import read_run, utterance_rows
    from dgasr.evaluation.tables import figures_table

    # Loaded before anything is timed, so that what cannot be used is refused before an hour of decoding.
    baseline = _load_baseline(options.baseline, has_words=False) if options.baseline else None
    other, name = None, f"{baseline.name}, {_num_threads()} threads each" if baseline else ""
    if options.against:
        other = read_run(options.against, [(own.audio_filepath, own.text) for own in utterances])
        name = str(options.against)
    started_at, evaluations = datetime.now(UTC), list["Evaluation"]()
    if is_baseline(options.model):
        evaluations.append(_by_baseline(options, _load_baseline(options.model, has_words=True), utterances))
    else:
        evaluations += _by_model(options, selection, step_counts)
    evaluation = max(evaluations, key=lambda own: own.max_steps)
    other = _by_baseline(options, baseline, utterances) if baseline else other
    figures = evaluation.to_json_beside(other, name) if other else evaluation.to_json()
    if len(evaluations) > 1:
        figures["by_steps"] = [own.to_json() for own in evaluations]
    if options.lake:
        _keep(options, figures, selection, started_at)
    if options.html:
        _write_page(options, figures, evaluation, other, utterances)
    table = figures_table(figures)
    table = table + _worst(options, evaluation, other) if options.worst else table
    return table, figures | {"utterances": utterance_rows(evaluation.utterances)}


def _by_model(options: argparse.Namespace, selection: "Selection", step_counts: tuple[int, ...]) -> "list[Evaluation]":
    """Score the model with each number of steps; one that has no steps, once."""
    from dgasr.evaluator import evaluate
    from dgasr.stages.engine import load_model

    model, config = load_model(engine_config(options)), _config(options, selection)
    counts = sorted(set(step_counts)) if options.path == "diffusion" else [options.max_steps]
    found = []
    for count in counts:
        with progress(f"reading and decoding, {count} steps", " utterances") as bar:
            way = replace(config, max_steps=count)
            found.append(evaluate(options.manifest, model, way, options.batch_size, bar.update))
    return found


def _keep(options: argparse.Namespace, figures: dict[str, Any], selection: "Selection", started_at: datetime) -> None:
    """Write a row into the lake's table of evaluations."""
    from dgasr.lake.commit import append_rows
    from dgasr.lake.location import lake_uri_of
    from dgasr.lake.rows import evaluation_row
    from dgasr.stages.engine import recipe_of
    from dgasr.stages.plan import new_run_id
    from dgasr.training.manifests import manifest_digest

    row = evaluation_row(
        figures, run_id=new_run_id(), recipe_id=recipe_of(engine_config(options)).recipe_id,
        manifest=str(options.manifest), manifest_digest=manifest_digest(options.manifest, selection),
        started_at=started_at,
    )  # fmt: skip
    append_rows(lake_uri_of(options.lake), "evaluations", [row])


def _write_page(
    options: argparse.Namespace, figures: dict[str, Any], evaluation: "Evaluation", other: "Evaluation | None",
    utterances: "list[Utterance]",
) -> None:  # fmt: skip
    from dgasr.evaluation.page import evaluation_page
    from dgasr.evaluation.worst import worst_utterances
    from dgasr.hypotheses import clip_mp3

    beside = other.utterances if other else None
    worst = worst_utterances(evaluation.utterances, options.normalizer, options.worst or WORST_ON_PAGE, beside)
    clips = {row["number"]: clip_mp3(utterances[row["number"]]) for row in worst}
    page = evaluation_page(
        figures, worst, {number: mp3 for number, mp3 in clips.items() if mp3 is not None},
        title=f"{options.run_name or options.model} on {options.manifest.name}",
        made=f"dgasr {version('dgasr')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {shlex.join(sys.argv[1:])}",
    )  # fmt: skip
    options.html.write_text(page, encoding="utf-8")


def _config(options: argparse.Namespace, selection: "Selection") -> "EvaluationConfig":
    from dgasr.evaluator import EvaluationConfig

    return EvaluationConfig(
        normalizer=options.normalizer, metric=options.metric, max_steps=options.max_steps, language=options.language,
        path=options.path, seed_canvas=options.seed_canvas, rescore=options.rescore,
        segmentation=options.segmentation, selection=selection, num_timed=options.latency,
    )  # fmt: skip


def _by_baseline(options: argparse.Namespace, baseline: "Baseline", utterances: "list[Utterance]") -> "Evaluation":
    from dgasr.baseline import evaluate_baseline

    with progress(baseline.name, " utterances") as bar:
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


def _compare(options: argparse.Namespace, selection: "Selection") -> tuple[str, list[dict[str, Any]]]:
    from dgasr.evaluation.tables import steps_table
    from dgasr.evaluator import WAYS, evaluate_ways
    from dgasr.stages.engine import load_model

    model = load_model(engine_config(options))
    evaluations = evaluate_ways(options.manifest, model, _config(options, selection), options.batch_size)
    figures = []
    with progress("comparing", " ways", len(WAYS)) as bar:
        for evaluation in evaluations:
            figures.append(evaluation.to_json())
            bar.update()
    return steps_table(figures), figures
