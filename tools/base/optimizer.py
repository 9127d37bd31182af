"""One optimizer for a training: Muon for matrices, AdamW for the rest, a rate for each part, state in one piece.

Muon gives every direction of a matrix the same step. The ear is as good after 400 of its steps as after 1,000 of
AdamW's (docs/experiments.md, 2026-11-29); a step takes 14 % longer.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgasr.model.checkpoint import replacing

LOWEST_SHARE = 0.02
"""Of the peak learning rate, at the end."""


def rate_share(step: int, warmup: int, steps: int) -> float:
    """Give the share of the peak learning rate at a step: it rises evenly for `warmup` steps, and falls as a cosine."""
    if step < warmup:
        return max((step + 1) / warmup, LOWEST_SHARE)
    return max(0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))), LOWEST_SHARE)


class PartsOptimizer:
    """Muon (Jordan et al. 2024) for matrices and kernels of convolutions, AdamW for biases, norms and what is named.

    Args:
        learning: what learns, by name.
        peaks: highest learning rate of the parts, by the beginning of their names.
        is_muons: says of a name whether Muon may have it, if it is a matrix.
    """

    def __init__(
        self, learning: Mapping[str, nn.Parameter], peaks: Mapping[str, float], is_muons: Callable[[str], bool]
    ) -> None:
        self._learning = learning
        # Views of the same storage: a convolution's kernel is one matrix to Muon.
        self._matrices = {
            name: nn.Parameter(parameter.data.flatten(1))
            for name, parameter in learning.items()
            if parameter.ndim >= 2 and is_muons(name)
        }
        others = {name: parameter for name, parameter in learning.items() if name not in self._matrices}

        def groups(parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
            split = [
                {"params": [p for n, p in parameters.items() if n.startswith(part)], "peak": peak}
                for part, peak in peaks.items()
            ]
            return [group for group in split if group["params"]]

        self._all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups(others), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        ]
        if self._matrices:
            self._all.append(
                torch.optim.Muon(groups(self._matrices), lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            )

    def set_share(self, share: float) -> None:
        """Set every learning rate to a share of its peak."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = float(group["peak"] * share)  # a number of NumPy's could not be loaded again

    def step(self) -> None:
        """Take a step by the gradients of what learns, and drop them."""
        for name, matrix in self._matrices.items():
            gradient = self._learning[name].grad
            matrix.grad = None if gradient is None else gradient.flatten(1)
        for optimizer in self._all:
            optimizer.step()
        for parameter in (*self._learning.values(), *self._matrices.values()):
            parameter.grad = None

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what `load_state_dict` takes."""
        return [optimizer.state_dict() for optimizer in self._all]

    def resume(self, path: Path) -> int:
        """Put what `save` wrote into what learns, in place, if it is there; return the step to go on with."""
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True)
        with torch.no_grad():
            for name, parameter in self._learning.items():
                parameter.copy_(state["weights"][name])
        self.load_state_dict(state["optimizer"])
        return int(state["step"])

    def save(self, path: Path, step: int) -> None:
        """Write what learns and this optimizer after so many steps; a kill leaves the file before or this one."""
        weights = {name: parameter.detach() for name, parameter in self._learning.items()}
        with replacing(path) as partial:
            torch.save({"step": step, "weights": weights, "optimizer": self.state_dict()}, partial)

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on where `state_dict` was made."""
        for optimizer, state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)
