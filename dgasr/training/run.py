"""One training run: settings and manifests in, a folder with final and best weights out; killed, it goes on there.

Knows no command line.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint

from dgasr.errors import ConfigError
from dgasr.manifests import Utterance
from dgasr.model.adapter import add_lora, has_lora, load_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import CHECKPOINTS, RUN_FILE, read_config
from dgasr.model.presets import LoraSize
from dgasr.model.pretrained import load_pretrained
from dgasr.training import RunConfig, TrainConfig
from dgasr.training.batches import Batches
from dgasr.training.trainer import (
    METRICS_FILE,
    SAMPLES_FILE,
    STATE_FILE,
    AsrTrainer,
    Losses,
    Sample,
    is_first_process,
    last_checkpoint,
    load_trained,
    save_trained,
)

ADAPTER_PARTS = {"lora", "projector"}
"""Parts that an adapter folder holds."""


def starting_model(
    name: str, adapter: str | None = None, lora: LoraSize | None = None, device: torch.device | str = "cpu"
) -> AsrModel:
    """Load the model that training changes: `full`, or the model folder to go on from.

    An `adapter` (projector and LoRA) is gone on from; without one, LoRA of a size may be put on the backbone. Frozen
    weights are loaded to the device.

    Raises:
        ConfigError: what was asked for is not there, or would train frozen weights.
    """
    config = read_config(name)
    if config.pretrained and not (lora or adapter):
        raise ConfigError(
            f"--base {name}: its encoder and backbone are frozen, and too large to train whole. Leave out --no-lora, "
            "or give --adapter to go on with one."
        )
    model = load_pretrained(config, device=device) if config.pretrained else load_model(Path(name))
    if adapter is not None:
        load_adapter(model, adapter)
    elif lora:
        add_lora(model, lora)
    return model


def train_run(
    model: AsrModel,
    train: Sequence[Utterance],
    validation: Sequence[Utterance],
    config: TrainConfig,
    run: RunConfig,
    *,
    device: torch.device | None = None,
    sample: Sample | None = None,
    must_resume: bool = False,
    batches: Batches | None = None,
) -> int:
    """Train a model in place, and write it; return the optimizer steps that the run has done in all.

    Args:
        model: with its first weights.
        train: utterances to learn from.
        validation: utterances whose losses say which weights are best; may be empty.
        config: what is learned.
        run: where to. A run of the same settings that lies there is gone on with.
        device: where to train; the CPU when `None`.
        sample: shows what the model hears at each validation.
        must_resume: refuse where there is nothing to go on with.
        batches: to learn from in place of `train`'s own, which take every utterance once an epoch.

    Raises:
        ConfigError: `run.out` holds another run, the settings train what is not there or would not be written, or data
            do not fit the model.
        DivergedError: a loss or gradient is not a number any more.
    """
    device = device or torch.device("cpu")
    _check_parts(model, config)
    batches = batches or Batches(
        train, model.config, model.tokenizer, config.batches, config.augmentation, config.strength,
        config.num_batches, config.seed,
    )  # fmt: skip
    measured = _validation_batches(model, validation, config)
    finished = _begin(run, config, model, train, must_resume=must_resume)
    model.to(device)
    _choose_trainable(model, config.train)
    if config.gradient_checkpointing:
        _checkpoint_feed_forward(model)
    resumed = last_checkpoint(run.out)
    done = int(resumed.name.split("-")[1]) if resumed else 0
    if finished:
        load_trained(model, resumed if resumed and done == finished else run.out / "final")
        model.eval()
        return finished
    if is_first_process():
        _forget_rows_after(run.out, done)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.out / "tensorboard")  # the library takes it from nowhere else
    if resumed and done == config.steps:  # killed before it wrote what it had come to
        load_trained(model, resumed)
        steps = done
    else:
        trainer = AsrTrainer(Losses(model, config), config, run, batches, measured, device, sample)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        steps = int(trainer.state.global_step)
    model.eval()
    if is_first_process():
        _keep_best(run.out)
        save_trained(model, run.out / "final", torch.float16 if run.is_half else torch.float32)
        _write_down(run, config, model, train, finished=steps)
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()  # or its threads now and then abort the process at its end
    return steps


def _choose_trainable(model: AsrModel, parts: tuple[str, ...]) -> None:
    for name, parameter in model.named_parameters():
        part = "lora" if "lora_" in name else name.split(".", 1)[0]
        parameter.requires_grad_(part in parts and "embed_positions" not in name)


def _checkpoint_feed_forward(model: AsrModel) -> None:
    """Let feed-forward layers and experts be computed again in the backward pass, in place.

    transformers' own checkpointing of whole layers drops the cache that the decoder reads.
    """
    layers = {getattr(module, name, None) for module in model.backbone.modules() for name in ("mlp", "experts")}
    for layer in layers:
        if isinstance(layer, nn.Module):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _validation_batches(model: AsrModel, validation: Sequence[Utterance], config: TrainConfig) -> Batches | None:
    if not validation:
        return None
    plain = replace(config.batches, non_speech_probability=0.0)
    count = Batches.epoch_length(validation, plain.batch_size)
    return Batches(
        validation, model.config, model.tokenizer, plain, config.augmentation, (0.0, 0.0), count, config.seed
    )


def _begin(
    run: RunConfig, config: TrainConfig, model: AsrModel, train: Sequence[Utterance], *, must_resume: bool
) -> int:
    """Write the run down, or check that the one that lies there is the same; return its steps if it is finished."""
    path = run.out / RUN_FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if must_resume and known is None:
        raise ConfigError(f"--resume: no run lies in {run.out}. Leave it out to begin one.")
    if known is None:
        run.out.mkdir(parents=True, exist_ok=True)
        if is_first_process():
            _write_down(run, config, model, train, finished=0)
        return 0
    if known["fingerprint"] != _fingerprint(config, model):
        raise ConfigError(f"{run.out} is a run of other settings, seed or weights. Give those, or another --run-name.")
    return int(known["finished"])


def _fingerprint(config: TrainConfig, model: AsrModel) -> str:
    """Name the run: settings, and the digest of the weights that it keeps."""
    weights = model.identity.digest if has_lora(model) else ""
    return hashlib.blake2b(f"{json.dumps(asdict(config))}\n{weights}".encode(), digest_size=16).hexdigest()


def _write_down(
    run: RunConfig, config: TrainConfig, model: AsrModel, train: Sequence[Utterance], *, finished: int
) -> None:
    written = {
        "fingerprint": _fingerprint(config, model), "base": run.base, "finished": finished, "data": data_rows(train),
    }  # fmt: skip
    partial = (run.out / RUN_FILE).with_suffix(".partial")
    partial.write_text(json.dumps({**written, "settings": asdict(config)}, indent=2) + "\n", encoding="utf-8")
    partial.replace(run.out / RUN_FILE)


def data_rows(utterances: Sequence[Utterance]) -> list[dict[str, str | int | float]]:
    """Count utterances, hours and speakers of each set and language, for the model's card."""
    groups: dict[tuple[str, str], list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault((utterance.set_name or "unnamed", utterance.language), []).append(utterance)
    return [
        {
            "set": name, "language": language, "utterances": len(own),
            "hours": round(sum(utterance.duration for utterance in own) / 3600, 3),
            "speakers": len({utterance.speaker for utterance in own if utterance.speaker}),
        }
        for (name, language), own in sorted(groups.items())
    ]  # fmt: skip


def _forget_rows_after(out: Path, step: int) -> None:
    """Drop the rows of steps that a killed run had done beyond its last checkpoint: they are done again."""
    for path in (out / METRICS_FILE, out / SAMPLES_FILE):
        if path.is_file():
            rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
            path.write_text("".join(kept), encoding="utf-8")


def _keep_best(out: Path) -> None:
    """Copy the weights of the lowest validation loss; with none measured, there is no `best`."""
    last = last_checkpoint(out)
    best = json.loads((last / STATE_FILE).read_text(encoding="utf-8"))["best_model_checkpoint"] if last else None
    if best is None or not (best := out / CHECKPOINTS / Path(best).name).is_dir():
        return
    shutil.rmtree(out / "best", ignore_errors=True)
    ignored = shutil.ignore_patterns("optimizer*", "scheduler*", "rng_state*", "trainer_state.json", "*.bin")
    shutil.copytree(best, out / "best", ignore=ignored)


def _check_parts(model: AsrModel, config: TrainConfig) -> None:
    """Refuse settings that train parts the model does not have, or, under LoRA, parts that an adapter does not hold."""
    trained = set(config.train)
    lost = sorted(trained - ADAPTER_PARTS) if has_lora(model) else []
    if lost:
        raise ConfigError(
            f"train: with LoRA only {' and '.join(sorted(ADAPTER_PARTS))} are written; what {', '.join(lost)} learns "
            "would be lost. Leave that out, or give --no-lora."
        )
    if "lora" in trained and not has_lora(model):
        raise ConfigError("train: the settings train lora, and the model has none. Leave out --no-lora.")
