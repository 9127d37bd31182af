"""`dgasr train`: manifests in, the folder of a run out, with weights that `dgasr evaluate` and `transcribe` take."""

import argparse
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import check_output_folder, finite_float, natural_int, positive_int
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from dgasr.manifests import Utterance
    from dgasr.model.asr import AsrModel
    from dgasr.training import TrainConfig
    from dgasr.training.trainer import Sample

LOSSES = {"diffusion": "of the denoiser", "ar": "token after token", "ctc": "of the projector's output"}
"""Flag, and what it weighs."""

PRESETS = {
    "reference": {"epochs": 10, "batch_size": 3, "grad_accum": 4, "lr": 5e-4, "ar_weight": 1.0, "ctc_weight": 1.0},
}
"""Recipes by name: what flags are where nobody gives them."""

NUM_SAMPLES = 4
"""Validation utterances that each look transcribes."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "train",
        help="train projector and LoRA, or all of a small model, on manifests",
        description="Killed, the same command goes on exactly there. On several GPUs: `torchrun --nproc-per-node N -m "
        "dgasr.cli train …`.",
    )
    add = parser.add_argument
    add("manifests", nargs="+", type=Path, metavar="MANIFEST", help="JSONL; one named twice counts twice")
    add("--run-name", required=True, metavar="NAME", help="folder of the run: final, best, metrics, TensorBoard")
    add("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs lie (default: runs)")
    add("--validation", type=Path, metavar="MANIFEST", help="its losses say which weights are `best`; also samples")
    add("--resume", action="store_true", help="there must be a run to go on with (default: go on, or begin)")
    start = parser.add_argument_group("first weights").add_argument
    start("--base", default="tiny", metavar="base|tiny|full|DIR", help="weights to go on from (default: tiny)")
    start("--adapter", metavar="DIR|HUB_ID", help="projector and LoRA to go on from")
    rank = "of LoRA on q, k, v, o (default: the base's); alpha is 2 N"
    start("--lora-rank", type=positive_int, metavar="N", help=rank)
    start("--no-lora", action="store_true", help="train the backbone of a small base itself (default: LoRA)")
    learn = parser.add_argument_group("learning").add_argument
    learn(
        "--preset", choices=PRESETS, default="reference",
        help="what these flags are where they are not given (default: reference, the reference's recipe: 10 epochs, "
        "batches of 3, 4 of them a step, peak learning rate 5e-4, all three losses alike)",
    )  # fmt: skip
    learn("--epochs", type=positive_int, metavar="N", help="each utterance once an epoch (default: %(default)s)")
    learn("--steps", type=positive_int, metavar="N", help="optimizer steps, in place of --epochs")
    learn("--lr", type=finite_float, metavar="X", help="peak learning rate (default: %(default)s)")
    learn("--warmup-steps", type=natural_int, default=50, metavar="N", help="default: 50")
    learn("--batch-size", type=positive_int, metavar="N", help="utterances (default: %(default)s)")
    learn("--grad-accum", type=positive_int, metavar="N", help="batches a step of all processes (default: %(default)s)")
    learn("--augment", type=finite_float, default=0.5, metavar="X", help="augmentation strength, 0 to 1 (default: 0.5)")
    for name, loss in LOSSES.items():
        weight = f"of the loss {loss}, a factor (default: %(default)s)"
        learn(f"--{name}-weight", type=finite_float, default=1.0, metavar="X", help=weight)
    patience = "end after N looks at --validation without a better loss (default: 0, never)"
    learn("--patience", type=natural_int, default=0, metavar="N", help=patience)
    group = parser.add_argument_group("run").add_argument
    group("--precision", choices=("fp32", "bf16"), default="fp32", help="of products (default: fp32)")
    group("--gradient-checkpointing", action="store_true", help="less memory, a third more time (default: off)")
    group("--seed", type=int, default=0, metavar="N", help="default: 0")
    group("--checkpoint-steps", type=positive_int, default=250, metavar="N", help="default: 250")
    group("--validation-steps", type=positive_int, default=250, metavar="N", help="default: 250")
    group("--workers", type=natural_int, default=1, metavar="N", help="processes that make batches (default: 1)")
    group("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    parser.set_defaults(run=run, **PRESETS["reference"])


def run(options: argparse.Namespace) -> int:
    """Train, with a progress bar when a person is looking."""
    from dgasr.manifests import read_manifest
    from dgasr.model.identity import BUNDLED, model_folder, read_config
    from dgasr.model.presets import LoraSize
    from dgasr.training import RunConfig
    from dgasr.training.run import starting_model, train_run
    from dgasr.training.trainer import is_first_process
    from dgasr.transcriber.loading import choose_device

    if options.no_lora and (options.adapter or options.lora_rank):
        raise ConfigError("--no-lora: leave out --adapter and --lora-rank.")
    if options.patience and not options.validation:
        raise ConfigError("--patience: give --validation, whose loss it waits for.")
    out = options.runs / options.run_name
    check_output_folder("--runs", out)
    train = [utterance for path in options.manifests for utterance in read_manifest(path)]
    validation = read_manifest(options.validation) if options.validation else []
    config = _config(options, train)
    device = choose_device(options.device)
    _use(device)
    is_preset = options.base in (*BUNDLED, "full")
    name = options.base if options.base == "full" else str(model_folder(options.base))
    lora = None if options.no_lora or options.adapter else read_config(name).lora
    if options.lora_rank:
        lora = LoraSize(rank=options.lora_rank, alpha=2 * options.lora_rank)
    model = starting_model(name, options.adapter, lora, device)
    base = options.base if is_preset else str(Path(name).resolve())
    settings = RunConfig(
        out=out, base=base, checkpoint_steps=options.checkpoint_steps,
        validation_steps=options.validation_steps, workers=options.workers, shows_progress=sys.stderr.isatty(),
    )  # fmt: skip
    steps = train_run(
        model, train, validation, config, settings, device=device, must_resume=options.resume,
        sample=_sample(validation) if validation else None,
    )  # fmt: skip
    if not is_first_process():
        return 0
    found = "final and best" if (out / "best").is_dir() else "final"
    sys.stdout.write(f"{out}: trained for {steps} steps; weights in {found}, losses in metrics.jsonl there.\n")
    return 0


def _use(device: "torch.device") -> None:
    """Make `cuda` mean one GPU of several: the one that was named, or of torchrun's processes each its own."""
    import torch

    own = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        torch.cuda.set_device(own)


def _config(options: argparse.Namespace, train: "list[Utterance]") -> "TrainConfig":
    from dgasr.training import TrainConfig
    from dgasr.training.batches import BatchConfig, Batches
    from dgasr.training.objective import LossWeights

    an_epoch = Batches.epoch_length(train, options.batch_size)
    return TrainConfig(
        steps=options.steps or math.ceil(options.epochs * an_epoch / options.grad_accum),
        learning_rate=options.lr, warmup_steps=options.warmup_steps,
        train=("backbone", "encoder", "projector") if options.no_lora else ("lora", "projector"),
        losses=replace(
            LossWeights(), diffusion=options.diffusion_weight, autoregressive=options.ar_weight,
            ctc=options.ctc_weight, frame=0.0,
        ),
        batches=BatchConfig(batch_size=options.batch_size),
        strength=(options.augment, options.augment), grad_accumulation=options.grad_accum, patience=options.patience,
        precision=options.precision, gradient_checkpointing=options.gradient_checkpointing, seed=options.seed,
    )  # fmt: skip


def _sample(validation: "list[Utterance]") -> "Sample":
    from dgasr.evaluator import EvaluationConfig, evaluate
    from dgasr.manifests import Selection, select_utterances

    config = EvaluationConfig(normalizer="basic", metric="wer", max_steps=8)
    few = select_utterances(validation, Selection(limit=NUM_SAMPLES))

    def sample(model: "AsrModel") -> list[dict[str, str]]:
        found = evaluate(few, model, config, NUM_SAMPLES).utterances
        return [{"said": own.reference, "heard": own.hypothesis} for own in found]

    return sample
