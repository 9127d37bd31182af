"""One engine on clips of one length: how many fit the memory at once, how fast they are decoded, where time goes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dgasr.bench.bound import Rates, window_work
from dgasr.bench.decode_engines import ENGINES, PHASES, decode_ours, fixed_steps, phases_of, tokens_per_expert
from dgasr.bench.decode_figures import Measured
from dgasr.bench.decode_model import noise_segments
from dgasr.bench.largest import largest_fitting
from dgasr.bench.peak import PeakMemory
from dgasr.bench.stopwatch import Stopwatch
from dgasr.model.asr import AsrModel
from dgasr.recipe import Recipe
from dgasr.transcriber.memory import is_out_of_memory, release_memory

LARGEST_TRIED = 4096
"""Segments; more at once have no use."""

STEPS_AT_THE_PEAK = 2
"""Steps that take as much memory as any number: the second one holds what the first one left."""

BEFORE_DENOISING = ("mel", "encoder", "projector", "ctc", "hearing", "prefill")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeCase:
    """What is measured.

    model: on its device.
    recipe: of this model, with a fixed number of steps.
    engine: `ours` or `transformers`.
    clip_s: length of the clips, at most the model's window.
    canvas: tokens of every canvas.
    rounds: batches timed after one to warm up.
    """

    model: AsrModel
    recipe: Recipe
    engine: str
    clip_s: float
    canvas: int
    rounds: int

    def largest_batch(self) -> int:
        """Find how many clips the memory holds at once; 0 where it does not hold one."""
        recipe = replace(self.recipe, decode=fixed_steps(self.recipe, STEPS_AT_THE_PEAK))
        return largest_fitting(lambda batch: self._fits(partial(self._decode, recipe, batch, 1)), LARGEST_TRIED)

    def measure(self, rates: Rates, batch: int) -> Measured:
        """Measure; without figures where the memory does not hold the batch."""
        found: list[Measured] = []
        is_held = batch > 0 and self._fits(lambda: found.append(self._measure(rates, batch)))
        return found[0] if is_held else self._figures(batch)

    def _measure(self, rates: Rates, batch: int) -> Measured:
        model, steps = self.model, self.recipe.decode.max_steps
        self._decode(self.recipe, batch, 1)
        peak, watch = PeakMemory(model.device), Stopwatch(model.device)
        started = watch.now()
        self._decode(self.recipe, batch, self.rounds)
        wall_s = (watch.now() - started) / self.rounds  # of one batch
        peak_bytes = peak.bytes()
        phases_s, before_s, experts = None, 0.0, None
        if self.engine == "ours":
            phases_s, experts = self._phases(batch)
            before_s = sum(phases_s[phase] for phase in BEFORE_DENOISING)
        return self._figures(
            batch, rtfx=round(batch * self.clip_s / wall_s, 2),
            ms_per_step=round(1000 * max(wall_s - before_s, 0.0) / steps, 3),
            share_of_bound=round(self.least_s(rates, batch) / wall_s, 4), peak_bytes=peak_bytes, phases_s=phases_s,
            tokens_per_expert=experts,
        )  # fmt: skip

    def _figures(self, batch: int, **found: Any) -> Measured:
        return Measured(engine=self.engine, clip_s=self.clip_s, batch=batch, canvas=self.canvas, **found)

    def least_s(self, rates: Rates, batch: int) -> float:
        """Least time of a batch by the machine's rates; transformers reads no CTC, and projects once."""
        is_ours, config = self.engine == "ours", self.model.config
        work = window_work(config, batch, self.canvas, self.clip_s if is_ours else 0.0)
        return sum(
            part.seconds(rates, self.model.head_weight.element_size())
            * (self.recipe.decode.max_steps if phase in ("body", "tail") else 1)
            for phase, part in work.items()
            if is_ours or phase != "ctc"
        )

    def _decode(self, recipe: Recipe, batch: int, rounds: int) -> None:
        ENGINES[self.engine](
            self.model, recipe, noise_segments(self.model.config, self.clip_s, batch * rounds), batch, self.canvas
        )

    def _phases(self, batch: int) -> tuple[dict[str, float], dict[str, float]]:
        """Time one batch by phase, and see how evenly its tokens are routed."""
        watch, counts = Stopwatch(self.model.device), list[Tensor]()
        segments = noise_segments(self.model.config, self.clip_s, batch)
        started = watch.now()
        with phases_of(self.model, watch):
            decode_ours(self.model, self.recipe, segments, batch, self.canvas)
        whole_s = watch.now() - started
        phases = {phase: round(watch.seconds[phase], 5) for phase in PHASES[:-1]}
        phases[PHASES[-1]] = round(whole_s - sum(phases.values()), 5)
        with tokens_per_expert(self.model, counts):
            one_step = replace(self.recipe, decode=fixed_steps(self.recipe, 1))
            decode_ours(self.model, one_step, segments, batch, self.canvas)
        routed = torch.stack(counts).double()  # [layers, experts]
        experts = {"mean": float(routed.mean()), "least": float(routed.min()), "most": float(routed.max()),
                   "used": float((routed > 0).double().mean())}  # fmt: skip
        return phases, {name: round(value, 3) for name, value in experts.items()}

    def _fits(self, work: Callable[[], object]) -> bool:
        """Do something, and tell whether the memory held it."""
        is_held = True
        try:
            work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            is_held = False
        # Only here, where the error holds the failed batch's tensors no longer, is their memory free.
        release_memory()
        return is_held
