"""What a machine can do: time by phase, its bandwidth and matrix rate. Knows no model."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


class Stopwatch:
    """Seconds by phase; waits for the device at every mark, so that each phase pays for its own work.

    On a CPU with one thread it counts processor time, which other processes hardly change.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_running = device, False
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is counted; what it calls of other phases counts as its own."""

        def run(*arguments: Any, **named: Any) -> Any:
            if self._is_running:
                return work(*arguments, **named)
            self._is_running, started = True, self.now()
            try:
                return work(*arguments, **named)
            finally:
                self._is_running = False
                self.seconds[phase] += self.now() - started

        return run

    def now(self) -> float:
        """Give the time when all work so far is done, s."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What a machine does in a second.

    copy_bytes: read and written together by a copy of a large tensor.
    flops: of a large matrix product in the model's type.
    """

    copy_bytes: float
    flops: float


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure bandwidth and matrix rate, each the best of a few."""
    is_gpu = device.type == "cuda"
    numbers, side = (2**30, 8192) if is_gpu else (2**24, 768)
    source = torch.zeros(numbers, dtype=dtype, device=device)
    target = torch.empty_like(source)
    square = torch.zeros(side, side, dtype=dtype, device=device)
    copy_s = _best_s(lambda: target.copy_(source), device)
    product_s = _best_s(lambda: square @ square, device)
    return Rates(copy_bytes=2 * numbers * dtype.itemsize / copy_s, flops=2 * side**3 / product_s)


def _best_s(work: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    watch, times = Stopwatch(device), []
    for _ in range(rounds + 1):
        started = watch.now()
        work()
        times.append(watch.now() - started)
    return min(times[1:])


def busy_share(device: torch.device, work: Callable[[], object]) -> float:
    """Measure in what share of some work's time the device itself works, by torch's profiler.

    Args:
        device: a GPU, whose kernels count, or the CPU, where torch's operations do.
        work: what is done; the device is waited for at its end.
    """
    is_gpu = device.type == "cuda"
    watch = Stopwatch(device)
    kinds = [torch.profiler.ProfilerActivity.CUDA if is_gpu else torch.profiler.ProfilerActivity.CPU]
    started = watch.now()
    with torch.profiler.profile(activities=kinds) as profile:
        work()
        wall_s = watch.now() - started
    times = (event.self_device_time_total if is_gpu else event.self_cpu_time_total for event in profile.key_averages())
    return round(min(sum(times) / 1e6 / wall_s, 1.0), 4)
