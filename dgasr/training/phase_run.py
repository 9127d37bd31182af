"""One phase of a training run: batches in, steps of its optimizer, a row of metrics and now and then a state out.

Every batch and every noise draw is a pure function of (seed, phase, step). The state that a killed run goes on from is
written whole, and bound to its plan and seed.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.adapter import has_lora
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import unique_tensors
from dgasr.prompt import Tokenizer, build_prompt
from dgasr.training.batches import Batch, Batches
from dgasr.training.manifests import Utterance
from dgasr.training.objective import batch_losses
from dgasr.training.phases import Plan

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"

STATE_FILE = "training-state.pt"


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


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a run had reached after `step` optimizer steps."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    def load_into(self, model: AsrModel) -> None:
        """Copy the weights into a model of the same configuration."""
        wanted = _changing_tensors(model)
        if wanted.keys() != self.weights.keys():
            raise IntegrityError(f"{STATE_FILE} is of another model. Train into an empty folder.")
        with torch.no_grad():
            for name, tensor in wanted.items():
                tensor.copy_(self.weights[name])


def write_state(
    folder: Path, model: AsrModel, optimizer: torch.optim.Optimizer, step: int, plan: Plan, seed: int
) -> None:
    """Replace the folder's state in one go: a kill leaves the old one or the new one."""
    partial = folder / (STATE_FILE + ".partial")
    weights = {name: tensor.detach() for name, tensor in _changing_tensors(model).items()}
    torch.save(
        {"step": step, "run": _fingerprint(model, plan, seed), "weights": weights, "optimizer": optimizer.state_dict()},
        partial,
    )
    os.replace(partial, folder / STATE_FILE)


def read_state(folder: Path, model: AsrModel, plan: Plan, seed: int) -> TrainingState | None:
    """Read the folder's state, `None` when there is none.

    Raises:
        ConfigError: it belongs to another plan or seed, or to other frozen weights.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if stored["run"] != _fingerprint(model, plan, seed):
        raise ConfigError(f"{path} belongs to another plan, seed or model. Give those, or train into an empty folder.")
    return TrainingState(stored["step"], stored["weights"], stored["optimizer"])


def _changing_tensors(model: AsrModel) -> dict[str, Tensor]:
    """Name what a run may change; under LoRA the frozen weights, 52 GB of them at full size, are not written again."""
    tensors = unique_tensors(model)
    if not has_lora(model):
        return tensors
    return {name: tensor for name, tensor in tensors.items() if "lora_" in name or name.startswith("projector.")}


def _fingerprint(model: AsrModel, plan: Plan, seed: int) -> str:
    frozen = model.identity.digest if has_lora(model) else ""
    return hashlib.blake2b(f"{seed}\n{plan.to_json()}{frozen}".encode(), digest_size=16).hexdigest()


class PhaseRun:
    """One phase of one run.

    Args:
        model: changed in place.
        tokenizer: of the model.
        train: utterances to learn from.
        validation: utterances to measure the losses on; may be empty.
        plan: the whole plan.
        config: where to and how.
        index: which phase of the plan.
        first: steps of the phases before it.
    """

    def __init__(
        self,
        model: AsrModel,
        tokenizer: Tokenizer,
        train: list[Utterance],
        validation: list[Utterance],
        plan: Plan,
        config: FitConfig,
        index: int,
        first: int,
    ) -> None:
        self._model, self._plan, self._config = model, plan, config
        self._phase = phase = plan.phases[index]
        self._index, self._first = index, first
        self._tokenizer = tokenizer
        self._prompts: dict[str, Tensor] = {}
        arguments = (model.config, tokenizer, phase.batches, plan.augmentation)
        micro_steps = phase.steps * phase.grad_accumulation
        self._batches = Batches(train, *arguments, phase.strength, micro_steps, _mixed(config.seed, index))
        self._validation = (
            Batches(validation, *arguments, (0.0, 0.0), config.validation_batches, config.seed) if validation else None
        )

    def _prompt_ids(self, language: str) -> Tensor:
        """Return the prompt that transcription uses for a language.  [prompt]"""
        if language not in self._prompts:
            settings = self._model.config
            prompt = build_prompt(self._tokenizer, settings.prompt, settings.num_audio_tokens, language)
            self._prompts[language] = torch.tensor(prompt.ids, device=self._config.device)
        return self._prompts[language]

    def train(self, start: int, state: TrainingState | None, on_step: Callable[[int, dict[str, float]], None]) -> None:
        """Take the phase's steps.

        Args:
            start: steps of the plan that are done; those of this phase among them are passed over.
            state: holds the optimizer where the phase goes on in its middle.
            on_step: called after each step with its number and its losses.
        """
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
                group["lr"] = self._phase.learning_rate_at(step)
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
                self._model, batch, self._prompt_ids(batch.language), self._phase.losses, self._phase.noise, generator
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
                self._model, batch, self._prompt_ids(batch.language), self._phase.losses, self._phase.noise, generator
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


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _mixed(*numbers: int) -> int:
    """Mix numbers into one seed that differs for each tuple."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    return mixed


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
