"""Time by phase, on any device. Knows nothing of what is timed."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


class Stopwatch:
    """Seconds by phase; waits for the device at every mark, so that each phase pays for its own work.

    On a CPU with one thread it counts processor time, which other processes hardly change.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is counted."""

        def run(*arguments: Any, **named: Any) -> Any:
            started = self.now()
            try:
                return work(*arguments, **named)
            finally:
                self.seconds[phase] += self.now() - started

        return run

    def now(self) -> float:
        """Give the time when all work so far is done, s."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
