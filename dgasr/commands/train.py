"""`dgasr train`: manifests in, a model or adapter folder out."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import check_output_folder, finite_float, natural_int, positive_int
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.model.asr import AsrModel
    from dgasr.training.phases import Phase, Plan

PARTS = ("encoder", "projector", "backbone")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("train", help="train projector and LoRA, or all of a small model, on manifests")
    parser.add_argument(
        "manifests", nargs="+", type=Path, metavar="MANIFEST", help="JSONL; one named twice counts twice"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="model or adapter folder; resumes what lies there"
    )
    parser.add_argument(
        "--validation", type=Path, metavar="MANIFEST", help="losses on these utterances go to metrics.jsonl"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="MANIFEST", help="training data with `words`, to correct CTC's word edges"
    )
    start = parser.add_argument_group("first weights")
    start.add_argument("--model", default="tiny", metavar="tiny|full|DIR", help="weights to go on from (default: tiny)")
    start.add_argument("--adapter", metavar="DIR|HUB_ID", help="projector and LoRA to go on from")
    start.add_argument(
        "--lora", action="store_true", help="put LoRA on q, k, v, o and train it instead of the backbone"
    )
    start.add_argument(
        "--freeze", type=_parts, default=(), metavar="PARTS", help=f"of {','.join(PARTS)}, comma-separated"
    )
    plan = parser.add_argument_group("plan")
    plan.add_argument(
        "--plan",
        metavar="FILE",
        help="JSON of several phases; of the flags below only --share then applies",
    )
    plan.add_argument(
        "--share", type=finite_float, default=1.0, metavar="X", help="of every phase's steps (default: 1)"
    )
    plan.add_argument("--steps", type=positive_int, default=1000, metavar="N", help="optimizer steps (default: 1000)")
    plan.add_argument("--lr", type=finite_float, default=5e-4, metavar="X", help="peak learning rate (default: 5e-4)")
    plan.add_argument("--warmup-steps", type=natural_int, default=50, metavar="N", help="default: 50")
    plan.add_argument("--batch-size", type=positive_int, default=3, metavar="N", help="default: 3")
    plan.add_argument("--grad-accum", type=positive_int, default=4, metavar="N", help="batches per step (default: 4)")
    plan.add_argument(
        "--max-join",
        type=positive_int,
        default=1,
        metavar="N",
        help="join up to N utterances of a speaker (default: 1)",
    )
    plan.add_argument(
        "--augment", type=finite_float, default=0.5, metavar="X", help="augmentation strength, 0 to 1 (default: 0.5)"
    )
    for name, default in (("diffusion", 1.0), ("ar", 1.0), ("ctc", 1.0), ("frame", 0.0)):
        plan.add_argument(
            f"--{name}-weight", type=finite_float, default=default, metavar="X", help=f"default: {default:g}"
        )
    plan.add_argument("--weight-decay", type=finite_float, default=0.01, metavar="X", help="default: 0.01")
    plan.add_argument("--clip-norm", type=finite_float, default=2.0, metavar="X", help="default: 2")
    run_group = parser.add_argument_group("run")
    run_group.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    run_group.add_argument("--checkpoint-steps", type=positive_int, default=250, metavar="N", help="default: 250")
    run_group.add_argument(
        "--workers", type=natural_int, default=1, metavar="N", help="processes that make batches (default: 1)"
    )
    run_group.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, with a progress bar when a person is looking."""
    from tqdm import tqdm

    from dgasr.model.identity import model_folder
    from dgasr.training.fit import StartConfig, fit, starting_model
    from dgasr.training.manifests import read_manifest
    from dgasr.training.phase_run import FitConfig
    from dgasr.transcriber.loading import choose_device

    if options.calibration and (options.lora or options.adapter):
        raise ConfigError("--calibration: word offsets go into a model's config; an adapter has none. Leave it out.")
    check_output_folder("--out", options.out)
    train = [utterance for path in options.manifests for utterance in read_manifest(path)]
    validation = read_manifest(options.validation) if options.validation else []
    plan = _plan(options)
    device = str(choose_device(options.device))
    name = options.model if options.model == "full" else str(model_folder(options.model))
    start = StartConfig(model=name, adapter=options.adapter, lora=options.lora, device=device)
    model, tokenizer_folder = starting_model(start, options.out)
    config = FitConfig(
        out=options.out, seed=options.seed, checkpoint_steps=options.checkpoint_steps,
        workers=options.workers, device=device,
    )  # fmt: skip
    with tqdm(total=plan.total_steps, unit=" steps", disable=not sys.stderr.isatty()) as bar:

        def show(step: int, losses: dict[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix({name: f"{loss:.3f}" for name, loss in losses.items()}, refresh=False)
            if not sys.stderr.isatty() and (step % 50 == 0 or step == plan.total_steps):
                shown = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
                sys.stderr.write(f"step {step} of {plan.total_steps}: {shown}\n")

        fit(model, tokenizer_folder, train, validation, plan, config, show)
    if options.calibration:
        _calibrate(model, options)
    sys.stdout.write(f"{options.out}: trained for {plan.total_steps} steps; the losses are in metrics.jsonl there.\n")
    return 0


def _calibrate(model: "AsrModel", options: argparse.Namespace) -> None:
    from dgasr.model.identity import CONFIG_FILE
    from dgasr.training.calibration import fit_word_offsets
    from dgasr.training.manifests import read_manifest

    start_ms, end_ms = fit_word_offsets(model, read_manifest(options.calibration))
    calibrated = replace(model.config, start_offset_ms=round(start_ms, 1), end_offset_ms=round(end_ms, 1))
    calibrated.save(options.out / CONFIG_FILE)
    sys.stdout.write(f"word times: {start_ms:+.1f} ms at starts, {end_ms:+.1f} ms at ends, in {CONFIG_FILE}\n")


def _plan(options: argparse.Namespace) -> "Plan":
    from dgasr.training.phases import Plan, read_plan

    if options.plan is None:
        plan = Plan(phases=(_phase(options),), weight_decay=options.weight_decay, clip_norm=options.clip_norm)
    else:
        plan = read_plan(Path(options.plan))
    return plan.shortened(options.share)


def _phase(options: argparse.Namespace) -> "Phase":
    from dgasr.training.examples import BatchConfig
    from dgasr.training.objective import LossWeights
    from dgasr.training.phases import Phase

    adapts = options.lora or options.adapter is not None
    trainable = {"projector", "lora"} if adapts else set(PARTS)
    train = tuple(sorted(trainable - set(options.freeze)))
    if not train:
        raise ConfigError(f"--freeze {','.join(options.freeze)}: nothing is left to train. Freeze less.")
    losses = replace(
        LossWeights(), diffusion=options.diffusion_weight, autoregressive=options.ar_weight, ctc=options.ctc_weight,
        frame=options.frame_weight,
    )  # fmt: skip
    return Phase(
        steps=options.steps, learning_rate=options.lr, warmup_steps=options.warmup_steps, train=train, losses=losses,
        batches=BatchConfig(batch_size=options.batch_size, max_join=options.max_join),
        strength=(options.augment, options.augment), grad_accumulation=options.grad_accum,
    )  # fmt: skip


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not among {', '.join(PARTS)}")
    return parts
