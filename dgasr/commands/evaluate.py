"""`dgasr evaluate`: score a model on a manifest with reference texts, alone or beside another system."""

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
from dgasr.errors import ConfigError, printable

if TYPE_CHECKING:
    from dgasr.evaluation.report import Evaluation
    from dgasr.manifests import Selection, Utterance


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("evaluate", help="score a model on a manifest: WER or CER, speed, word times")
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="JSONL: audio_filepath, duration, text, language")
    weights = parser.add_argument_group("a training run, in place of --model and --adapter").add_argument
    weights("--run-name", metavar="NAME", help="of `dgasr train`: score what it came to (default: --model)")
    weights("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: runs)")
    weights("--ckpt", default="final", metavar="final|best|STEP|DIR", help="which of its weights (default: final)")
    add(
        "--normalizer", choices=("whisper", "basic", "leaderboard", "none"), default="basic",
        help="what is no error: as Whisper's paper has it; case and punctuation alone; as the Open ASR Leaderboard has "
        "it; nothing (default: basic)",
    )  # fmt: skip
    add("--metric", choices=("wer", "cer"), default="wer", help="what the table leads with (default: wer)")
    chosen = parser.add_argument_group("utterances").add_argument
    chosen("--languages", type=names, default=(), metavar="CODE,…", help="only these languages' rows (default: all)")
    chosen(
        "--subset", type=names, default=(), metavar="NAME,…",
        help="only these sets: the field `set`, or its last word, such as test.clean (default: all)",
    )  # fmt: skip
    limit = "at most N utterances, spread over the sets (default: all)"
    chosen("--limit", type=positive_int, default=0, metavar="N", help=limit)
    chosen("--skip-missing", action="store_true", help="leave out utterances whose audio is not there")
    beside = parser.add_mutually_exclusive_group().add_argument
    beside(
        "--baseline", metavar="faster-whisper:DIR|whisper:DIR|pocketsphinx",
        help="also score faster-whisper (int8, greedy, as many threads), transformers' Whisper (float32, greedy) or "
        "pocketsphinx on the same utterances, beside it (default: none)",
    )  # fmt: skip
    beside(
        "--against", type=Path, metavar="FILE",
        help="another run on the same utterances, as --json wrote it: paired bootstrap of both error rates "
        "(default: none)",
    )  # fmt: skip
    add(
        "--latency", type=natural_int, default=20, metavar="N",
        help="transcribe N utterances once more, one by one, for p50 and p95 (default: 20; 0: none)",
    )  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="also write the figures as JSON (default: none)")
    add("--html", type=Path, metavar="FILE", help="also write a page with plots and audio (default: none)")
    add("--worst", type=positive_int, default=20, metavar="N", help="utterances with most errors there (default: 20)")
    add("--lake", type=given_uri, metavar="LAKE", help="also write a row of `evaluations` there (default: none)")
    add_model_arguments(parser, max_steps=positive_ints)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score and print; flags that name what is not there or cannot be written are refused before any work."""
    from dgasr.evaluation.report import utterance_rows
    from dgasr.evaluation.tables import figures_table
    from dgasr.manifests import Selection, missing_files, read_manifest, select_utterances

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
            "--skip-missing:\n" + "\n".join(map(printable, missing))
        )
    if missing:
        sys.stderr.write(f"left out, since they are not there: {len(missing)} audio files\n")
    for flag in ("json", "html"):
        check_output_file(f"--{flag}", getattr(options, flag))
    started_at = datetime.now(UTC)
    evaluation, other, figures = _score(options, utterances)
    if options.lake:
        _write_lake(options, figures, selection, started_at)
    if options.html:
        _write_page(options, figures, evaluation, other, utterances)
    sys.stdout.write(figures_table(figures))
    if options.json:
        kept = figures | {"utterances": utterance_rows(evaluation.utterances)}
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return 0


def _weights_of(options: argparse.Namespace) -> tuple[str, str | None]:
    """Find the model, and the adapter where there is one, that a training run came to."""
    from dgasr.model.identity import ADAPTER_FILES, CHECKPOINTS, RUN_FILE

    folder = options.runs / options.run_name
    settings = folder / RUN_FILE
    if not settings.is_file():
        raise ConfigError(f"--run-name {options.run_name}: {folder} holds no run. Give --runs, or train one.")
    known = {path.name: path for path in (folder / "final", folder / "best") if path.is_dir()}
    known |= {path.name.split("-")[1]: path for path in sorted(folder.glob(f"{CHECKPOINTS}/checkpoint-*"))}
    weights = known.get(options.ckpt, Path(options.ckpt))
    if not weights.is_dir():
        raise ConfigError(f"--ckpt {options.ckpt}: {folder} has {', '.join(known) or 'no weights yet'}.")
    if not (weights / ADAPTER_FILES[0]).is_file():
        return str(weights), None
    return str(json.loads(settings.read_text(encoding="utf-8"))["base"]), str(weights)


def _score(
    options: argparse.Namespace, utterances: "list[Utterance]"
) -> "tuple[Evaluation, Evaluation | None, dict[str, Any]]":
    """Score the model, with each number of steps, and what stands beside; the last figures hold all of it."""
    import torch

    from dgasr.baseline import evaluate_baseline, load_baseline
    from dgasr.evaluation.report import read_run
    from dgasr.evaluator import EvaluationConfig, evaluate
    from dgasr.stages.engine import load_model

    # Loaded before anything is timed, so that what cannot be used is refused before an hour of decoding.
    threads = torch.get_num_threads()  # OMP_NUM_THREADS, else one a core
    baseline = load_baseline(options.baseline, threads) if options.baseline else None
    other, name = None, f"{baseline.name}, {threads} threads each" if baseline else str(options.against)
    if options.against:
        other = read_run(options.against, [(own.audio_filepath, own.text) for own in utterances])
    config = EvaluationConfig(
        normalizer=options.normalizer, metric=options.metric, max_steps=None, language=options.language,
        rescore=options.rescore, segmentation=options.segmentation, num_timed=options.latency,
    )  # fmt: skip
    counts = sorted(set(options.max_steps)) if isinstance(options.max_steps, tuple) else [options.max_steps]
    options.max_steps = counts[-1]
    model, evaluations = load_model(engine_config(options)), []
    for count in counts:
        with progress(f"reading and decoding{f', {count} steps' if count else ''}", " utterances") as bar:
            way = replace(config, max_steps=count)
            evaluations.append(evaluate(utterances, model, way, options.batch_size, bar.update))
    if baseline:
        with progress(baseline.name, " utterances") as bar:
            other = evaluate_baseline(utterances, baseline, config, bar.update)
    figures = evaluations[-1].to_json(other, name)
    if len(evaluations) > 1:
        figures["by_steps"] = [own.to_json() for own in evaluations]
    return evaluations[-1], other, figures


def _write_lake(
    options: argparse.Namespace, figures: dict[str, Any], selection: "Selection", started_at: datetime
) -> None:
    from dgasr.lake.ledger import append_rows
    from dgasr.lake.location import lake_uri_of
    from dgasr.lake.rows import evaluation_row
    from dgasr.manifests import manifest_digest
    from dgasr.stages.engine import recipe_of
    from dgasr.stages.plan import new_run_id

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
    from dgasr.evaluation.page import evaluation_page, worst_utterances
    from dgasr.evaluator import clip_mp3

    beside = other.utterances if other else None
    worst = worst_utterances(evaluation.utterances, options.normalizer, options.worst, beside)
    page = evaluation_page(
        figures, worst, {row["number"]: clip_mp3(utterances[row["number"]]) for row in worst},
        title=f"{options.run_name or options.model} on {options.manifest.name}",
        made=f"dgasr {version('dgasr')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {shlex.join(sys.argv[1:])}",
    )  # fmt: skip
    options.html.write_text(page, encoding="utf-8")
