"""The state a killed training run goes on from: weights, optimizer, step. Written whole, bound to its plan and seed."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.adapter import has_lora
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import unique_tensors
from dgasr.training.plan import Plan

STATE_FILE = "training-state.pt"


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
