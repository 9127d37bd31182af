"""transformers' Trainer around the model and its losses: what a step computes, what a checkpoint holds, what is logged.

Optimizer, schedule, accumulation, data-parallel processes, early stopping and TensorBoard are the library's. Every
batch and every random draw is a pure function of the seed and the batch's number, so that a killed run goes on exactly.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from dgasr.errors import ConfigError, DgasrError
from dgasr.model.adapter import copy_adapter, has_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_weights, save_model
from dgasr.model.identity import CHECKPOINTS
from dgasr.prompt import build_prompt
from dgasr.training import RunConfig, TrainConfig
from dgasr.training.batches import Batch, Batches
from dgasr.training.objective import batch_losses

METRICS_FILE, SAMPLES_FILE = "metrics.jsonl", "samples.jsonl"

UNLOGGED = ("epoch", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
"""What the library logs and nobody asked for; its epoch is the whole run."""

SHOWN_STEPS = 50
"""Steps between two lines on standard error, where no bar is drawn."""

STATE_FILE = "trainer_state.json"
"""What the library writes last into a checkpoint."""

Sample = Callable[[AsrModel], list[dict[str, str]]]
"""Transcribes a few validation utterances with the model as it is; rows with what was said and heard."""


class DivergedError(DgasrError):
    """A loss or gradient is no number any more; the message names the last checkpoint."""


class Losses(nn.Module):
    """The model with its losses as one forward pass, which is what data-parallel processes wrap."""

    def __init__(self, model: AsrModel, config: TrainConfig) -> None:
        super().__init__()
        self.model, self._config = model, config
        self._prompts: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of one batch; a batch's number decides all that is random in it."""
        seed = mixed(self._config.seed, batch.number)
        torch.manual_seed(seed)  # of any dropout, which takes no generator
        return batch_losses(
            self.model, batch, self._prompt_ids(batch.language, batch.canvas.device), self._config.losses,
            self._config.noise, torch.Generator().manual_seed(seed),
        )  # fmt: skip

    def _prompt_ids(self, language: str, device: torch.device) -> Tensor:
        """Return the prompt that transcription uses for a language, made once.  [prompt]"""
        if language not in self._prompts:
            settings = self.model.config
            prompt = build_prompt(self.model.tokenizer, settings.prompt, settings.num_audio_tokens, language)
            self._prompts[language] = torch.tensor(prompt, device=device)
        return self._prompts[language]


class Metrics(TrainerCallback):
    """Writes what the library logs, a row a step, and shows it: in a bar, or now and then in a line."""

    def __init__(self, run: RunConfig) -> None:
        self._path, self._shows_progress = run.out / METRICS_FILE, run.shows_progress
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the bar."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit=" steps", disable=not self._shows_progress
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write a row."""
        if self._bar is None or not logs or "train_runtime" in logs:
            return
        named = {name.replace("eval_", "validation_"): value for name, value in logs.items() if name not in UNLOGGED}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **named}) + "\n")
        shown = ", ".join(f"{name} {value:.3g}" for name, value in named.items())
        if self._shows_progress:
            self._bar.update(state.global_step - self._bar.n)
            self._bar.set_postfix_str(shown, refresh=False)
        elif state.global_step % SHOWN_STEPS == 0 or state.global_step == state.max_steps:
            sys.stderr.write(f"step {state.global_step} of {state.max_steps}: {shown}\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


class AsrTrainer(Trainer):
    """Trains `Losses` on batches in the order of their numbers.

    Losses are measured on validation batches, and `sample` shows what the model hears then, where there are any.
    """

    def __init__(
        self, losses: Losses, config: TrainConfig, run: RunConfig, train: Batches, validation: Batches | None,
        device: torch.device, sample: Sample | None,
    ) -> None:  # fmt: skip
        arguments = _arguments(losses.model, config, run, has_validation=validation is not None, device=device)
        callbacks: list[TrainerCallback] = [Metrics(run)]
        if config.patience and validation is not None:
            callbacks.append(EarlyStoppingCallback(config.patience))
        # A loader that is asked for more than it has ends its processes in the middle of the last step, and what goes
        # wrong there ends the run: training has one batch more than it takes.
        numbered: Dataset[Batch] = Subset(train, range(len(train) + 1))
        super().__init__(
            losses, arguments, data_collator=_only, train_dataset=numbered,
            eval_dataset=validation, callbacks=callbacks,
        )  # fmt: skip
        for chatty in (PrinterCallback, ProgressCallback):
            self.remove_callback(chatty)
        self._run, self._sample, self._model = run, sample, losses.model
        self._sums: dict[str, float] = {}
        self._count = 0
        self._started = time.perf_counter()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Compute the weighted loss of one batch, and add its parts to what is logged next."""
        losses: dict[str, Tensor] = model(inputs["batch"])
        values = {name: loss.item() for name, loss in losses.items()}
        if not math.isfinite(values["total"]):
            raise self._diverged("loss")
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        return losses["total"]

    @torch.no_grad()
    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        """Measure the losses of a validation batch."""
        return self.compute_loss(model, inputs).detach(), None, None

    def evaluate(self, *arguments: Any, **keywords: Any) -> dict[str, float]:
        """Measure the validation losses, and let a person see what the model hears by now."""
        kept, self._sums, self._count = (self._sums, self._count), {}, 0
        metrics = super().evaluate(*arguments, **keywords)
        self._sums, self._count = kept
        if self._sample is not None and self.is_world_process_zero():
            self._model.eval()
            with (self._run.out / SAMPLES_FILE).open("a", encoding="utf-8") as file:
                for row in self._sample(self._model):
                    file.write(json.dumps({"step": self.state.global_step, **row}, ensure_ascii=False) + "\n")
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, and the seconds a step, to what the library logs."""
        prefix = "eval_" if "eval_loss" in logs else ""
        names = sorted(self._sums.keys() - {"total"})  # which is `loss`
        if names:
            means = torch.tensor([self._sums[name] / self._count for name in names], device=self.args.device)
            means = self.accelerator.reduce(means, "mean")  # of all processes
            logs |= {f"{prefix}{name}": mean for name, mean in zip(names, means.tolist(), strict=True)}
        if not prefix:
            logs["step_s"] = round(time.perf_counter() - self._started, 4)
            self._started = time.perf_counter()
        self._sums, self._count = {}, 0
        super().log(logs, start_time)

    def _get_grad_norm(self, *arguments: Any, **keywords: Any) -> Any:
        norm = super()._get_grad_norm(*arguments, **keywords)
        if norm is not None and not math.isfinite(float(norm)):
            raise self._diverged("gradient")
        return norm

    def _diverged(self, what: str) -> DivergedError:
        last = last_checkpoint(self._run.out)
        kept = f"The last good weights are in {last}" if last else "No checkpoint was written yet"
        return DivergedError(
            f"step {self.state.global_step + 1}: the {what} is not a number. {kept}; go on from there with a lower "
            "--lr, or look at the batch's audio and texts."
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        assert output_dir is not None
        if self.args.should_save:  # every process comes here
            save_trained(self._model, Path(output_dir), torch.float32)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained(self._model, Path(resume_from_checkpoint))


def save_trained(model: AsrModel, folder: Path, dtype: torch.dtype) -> None:
    """Write what a run trains: an adapter where LoRA is on, else the whole model with its tokenizer."""
    if has_lora(model):
        save_adapter(model, folder)
    else:
        save_model(model, folder, dtype)
        model.tokenizer.save(folder)


def load_trained(model: AsrModel, folder: Path) -> None:
    """Read what `save_trained` wrote, in place."""
    if has_lora(model):
        copy_adapter(model, str(folder))
    else:
        load_weights(model, folder)


def last_checkpoint(out: Path) -> Path | None:
    """Find a run's last whole checkpoint; what a kill left half-written is removed."""
    whole = []
    for folder in (out / CHECKPOINTS).glob("checkpoint-*"):
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            whole.append((int(state["global_step"]), folder))
        except (OSError, ValueError, KeyError):
            if is_first_process():
                shutil.rmtree(folder)
    return max(whole)[1] if whole else None


def is_first_process() -> bool:
    """Tell whether this process writes, of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def mixed(*numbers: int) -> int:
    """Mix numbers into one seed that differs for each tuple."""
    result = 0
    for number in numbers:
        result = (result * 1_000_003 + number + 1) % (2**63)
    return result


def _only(items: list[Batch]) -> dict[str, Batch]:
    """Pass a batch on: the dataset's items are batches."""
    (batch,) = items
    return {"batch": batch}


def _arguments(
    model: AsrModel, config: TrainConfig, run: RunConfig, *, has_validation: bool, device: torch.device
) -> TrainingArguments:
    is_float32, processes = model.head_weight.dtype == torch.float32, int(os.environ.get("WORLD_SIZE", "1"))
    if config.grad_accumulation % processes:
        raise ConfigError(
            f"{config.grad_accumulation} batches a step cannot be shared by {processes} processes. Choose a multiple."
        )
    arguments = TrainingArguments(
        output_dir=str(run.out / CHECKPOINTS),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=config.grad_accumulation // processes,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": config.final_share},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        max_grad_norm=config.clip_norm,
        bf16=config.precision == "bf16" and is_float32,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_validation else "no",
        eval_steps=run.validation_steps if has_validation else None,
        save_strategy="steps",
        save_steps=run.checkpoint_steps,
        save_total_limit=2,
        metric_for_best_model="loss" if has_validation else None,
        greater_is_better=False if has_validation else None,
        prediction_loss_only=True,
        seed=config.seed,
        dataloader_num_workers=run.workers,
        dataloader_prefetch_factor=4 if run.workers else None,
        dataloader_pin_memory=False,  # a `Batch` is small, and not pinned by the library
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        report_to="tensorboard",
        disable_tqdm=not run.shows_progress,
        use_cpu=device.type == "cpu",
        # With both losses every weight that learns has a gradient; without one the encoder's last layer or
        # self-conditioning has none.
        ddp_find_unused_parameters=not (config.losses.diffusion and config.losses.autoregressive),
        ddp_backend="gloo" if device.type == "cpu" and "LOCAL_RANK" in os.environ else None,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one GPU: several are torchrun's
    if device.index is not None and "LOCAL_RANK" not in os.environ:
        torch.cuda.set_device(device)  # the library has chosen the first GPU, whichever was asked for
        arguments._setup_devices = device
    return arguments
