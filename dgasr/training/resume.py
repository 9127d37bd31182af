"""The state a killed training run goes on from: weights, optimizer, step. Written whole, bound to its plan and seed."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgasr.errors import ConfigError, IntegrityError
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
        wanted = unique_tensors(model)
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
    weights = {name: tensor.detach() for name, tensor in unique_tensors(model).items()}
    torch.save(
        {"step": step, "run": _fingerprint(plan, seed), "weights": weights, "optimizer": optimizer.state_dict()},
        partial,
    )
    os.replace(partial, folder / STATE_FILE)


def read_state(folder: Path, plan: Plan, seed: int) -> TrainingState | None:
    """Read the folder's state, `None` when there is none.

    Raises:
        ConfigError: it belongs to another plan or seed.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if stored["run"] != _fingerprint(plan, seed):
        raise ConfigError(f"{path} belongs to another plan or seed. Give those, or train into an empty folder.")
    return TrainingState(stored["step"], stored["weights"], stored["optimizer"])


def _fingerprint(plan: Plan, seed: int) -> str:
    return hashlib.blake2b(f"{seed}\n{plan.to_json()}".encode(), digest_size=16).hexdigest()
