"""The training loop: plan and manifests in, model folder out; killed at any step, it goes on exactly there.

Every batch and every noise draw is a pure function of (seed, step), so that weights, optimizer and step number are all
there is to resume from. Knows no command line.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from dgasr.errors import ConfigError
from dgasr.model.adapter import has_lora, save_adapter
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import save_model
from dgasr.model.identity import TOKENIZER_FILE
from dgasr.prompt import Tokenizer, build_prompt
from dgasr.training.batches import Batch, Batches
from dgasr.training.manifests import Utterance
from dgasr.training.objective import batch_losses
from dgasr.training.plan import Phase, Plan
from dgasr.training.resume import TrainingState, read_state, write_state

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"

ADAPTER_PARTS = {"lora", "projector"}
"""Parts that an adapter folder holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Where a run writes, and how it runs; what it learns is the plan's.

    out: folder of the model, the metrics and the state to resume from.
    seed: of batches, augmentation, canvas noise.
    checkpoint_steps: steps between two states on disk.
    validation_steps: steps between two looks at the validation manifest.
    validation_batches: batches of that look.
    workers: processes that make batches; 0 makes them between the steps.
    device: where to train.
    dtype: of the weights in the model folder.
    """

    out: Path
    seed: int = 0
    checkpoint_steps: int = 250
    validation_steps: int = 250
    validation_batches: int = 8
    workers: int = 1
    device: str = "cpu"
    dtype: torch.dtype = torch.float16


def fit(
    model: AsrModel,
    tokenizer_folder: Path,
    train: list[Utterance],
    validation: list[Utterance],
    plan: Plan,
    config: FitConfig,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> None:
    """Train, and leave a model folder in `config.out`, or an adapter folder where LoRA was trained.

    Args:
        model: with its first weights; changed in place. A state in `config.out` replaces them.
        tokenizer_folder: holds `tokenizer.json`, which goes into the model folder.
        train: utterances to learn from.
        validation: utterances to measure the losses on; may be empty.
        plan: phases, augmentation, optimizer.
        config: where to and how.
        on_step: called after each step with its number and its losses, for a progress bar.

    Raises:
        ConfigError: `config.out` holds the state of another plan, seed or model, the plan trains what is not there or
            would not be written, or data do not fit the model.
    """
    _check_parts(model, plan)
    config.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(tokenizer_folder)
    model.to(config.device)
    state = read_state(config.out, model, plan, config.seed)
    start, first = 0, 0
    if state is not None:
        state.load_into(model)
        start = state.step
        log.info("resuming at step %d of %d", start, plan.total_steps)
    _forget_metrics_after(config.out / METRICS_FILE, start)
    for index, phase in enumerate(plan.phases):
        last = first + phase.steps
        if start < last:
            run = _PhaseRun(model, tokenizer, train, validation, plan, phase, config, index, first)
            run.train(start, state, on_step)
            state = None
        first, start = last, max(start, last)
    if has_lora(model):
        save_adapter(model, config.out)
        return
    save_model(model, config.out, config.dtype)
    if (tokenizer_folder / TOKENIZER_FILE).resolve() != (config.out / TOKENIZER_FILE).resolve():
        shutil.copyfile(tokenizer_folder / TOKENIZER_FILE, config.out / TOKENIZER_FILE)


class _PhaseRun:
    """One phase of one run."""

    def __init__(
        self,
        model: AsrModel,
        tokenizer: Tokenizer,
        train: list[Utterance],
        validation: list[Utterance],
        plan: Plan,
        phase: Phase,
        config: FitConfig,
        index: int,
        first: int,
    ) -> None:
        self._model, self._plan, self._phase, self._config = model, plan, phase, config
        self._index, self._first = index, first
        settings = model.config
        prompt = build_prompt(tokenizer, settings.prompt, settings.num_audio_tokens, settings.languages[0])
        self._prompt_ids = torch.tensor(prompt.ids, device=config.device)
        arguments = (model.config, tokenizer, phase.batches, plan.augmentation)
        micro_steps = phase.steps * phase.grad_accumulation
        self._batches = Batches(train, *arguments, phase.strength, micro_steps, _mixed(config.seed, index))
        self._validation = (
            Batches(validation, *arguments, (0.0, 0.0), config.validation_batches, config.seed) if validation else None
        )

    def train(self, start: int, state: TrainingState | None, on_step: Callable[[int, dict[str, float]], None]) -> None:
        parameters = _choose_trainable(self._model, self._phase.train)
        optimizer = torch.optim.AdamW(
            parameters, lr=self._phase.learning_rate, betas=self._plan.betas, weight_decay=self._plan.weight_decay
        )
        done = max(0, start - self._first)
        if state is not None and done > 0:
            optimizer.load_state_dict(state.optimizer)
        batches = self._loader(done)
        self._model.train()
        _set_dropout(self._model, self._phase.dropout)
        for step in range(done, self._phase.steps):
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = self._phase.learning_rate * _schedule(self._phase, step)
            losses = self._step(step, batches, optimizer, parameters)
            number = self._first + step + 1
            row = {"step": number, "phase": self._index, "lr": optimizer.param_groups[0]["lr"], **losses}
            row["step_s"] = round(time.perf_counter() - started, 4)
            if number % self._config.validation_steps == 0 or step + 1 == self._phase.steps:
                row |= {f"validation_{name}": value for name, value in self._validate().items()}
            self._write(row)
            on_step(number, losses)
            if number % self._config.checkpoint_steps == 0 or step + 1 == self._phase.steps:
                write_state(self._config.out, self._model, optimizer, number, self._plan, self._config.seed)
        self._model.eval()

    def _step(
        self, step: int, batches: Iterator[Batch], optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> dict[str, float]:
        seed = _mixed(self._config.seed, self._index, step)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of dropout, which takes no generator
        sums: dict[str, float] = {}
        for _ in range(self._phase.grad_accumulation):
            batch = next(batches).to(self._config.device)
            losses = batch_losses(
                self._model, batch, self._prompt_ids, self._phase.losses, self._phase.noise, generator
            )
            (losses["total"] / self._phase.grad_accumulation).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() / self._phase.grad_accumulation
        norm = nn.utils.clip_grad_norm_(parameters, self._plan.clip_norm)
        if torch.isfinite(norm):
            optimizer.step()
        else:
            log.warning("step %d: the gradient is not finite; this step changes nothing", step)
        optimizer.zero_grad(set_to_none=True)
        return {**sums, "grad_norm": float(norm)}

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        if self._validation is None:
            return {}
        self._model.eval()
        generator = torch.Generator().manual_seed(self._config.seed)
        sums: dict[str, float] = {}
        for index in range(len(self._validation)):
            batch = self._validation[index].to(self._config.device)
            losses = batch_losses(
                self._model, batch, self._prompt_ids, self._phase.losses, self._phase.noise, generator
            )
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() / len(self._validation)
        self._model.train()
        return sums

    def _loader(self, done: int) -> Iterator[Batch]:
        order = range(done * self._phase.grad_accumulation, len(self._batches))
        return iter(
            DataLoader(
                self._batches, batch_size=None, sampler=order, num_workers=self._config.workers,
                worker_init_fn=_one_thread, prefetch_factor=4 if self._config.workers else None,
            )
        )  # fmt: skip

    def _write(self, row: dict[str, float]) -> None:
        with (self._config.out / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _forget_metrics_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a killed run had done beyond its last state: they are done again."""
    if path.is_file():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _mixed(*numbers: int) -> int:
    """Mix numbers into one seed that differs for each tuple."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    return mixed


def _schedule(phase: Phase, step: int) -> float:
    """Learning rate of a step as a share of the peak: linear warm-up, then a cosine."""
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    progress = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return phase.final_share + (1 - phase.final_share) * 0.5 * (1 + math.cos(math.pi * progress))


def _check_parts(model: AsrModel, plan: Plan) -> None:
    """Refuse a plan that trains parts the model does not have, or, under LoRA, parts that an adapter does not hold."""
    trained = {part for phase in plan.phases for part in phase.train}
    lost = sorted(trained - ADAPTER_PARTS) if has_lora(model) else []
    if lost:
        raise ConfigError(
            f"train: with LoRA only {' and '.join(sorted(ADAPTER_PARTS))} are written; what {', '.join(lost)} learns "
            "would be lost. Leave that out of the plan, or leave out --lora."
        )
    if "lora" in trained and not has_lora(model):
        raise ConfigError("train: the plan trains lora, and the model has none. Add it with --lora or --adapter.")


def _set_dropout(model: AsrModel, share: float) -> None:
    """Set what the audio encoder drops while it learns; transformers' layers read this number at every call."""
    for module in (model.encoder, *model.encoder.layers):
        module.dropout = share


def _choose_trainable(model: AsrModel, parts: tuple[str, ...]) -> list[nn.Parameter]:
    """Freeze all but the named parts."""
    chosen: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        part = "lora" if "lora_" in name else name.split(".", 1)[0]
        trains = part in parts and "embed_positions" not in name
        parameter.requires_grad_(trains)
        if trains:
            chosen.append(parameter)
    return chosen
