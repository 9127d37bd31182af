"""Speed of decoding on this machine: waveforms to finished canvases, by batch, clip length and engine.

Every canvas takes all its steps, so figures of trained and random weights compare; text is not read from it, which on
real weights adds CTC alignment on the CPU. The weights, and how the audio sounds, do not change the work.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgasr.bench.bound import Rates, measure_rates, window_work
from dgasr.bench.decode_engines import ENGINES, PHASES, fixed_steps, phases_of, tokens_per_expert
from dgasr.bench.decode_model import Reduction, noise_segments, random_model
from dgasr.bench.stopwatch import Stopwatch
from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.recipe import Recipe, build_recipe
from dgasr.transcriber.loading import choose_device, load
from dgasr.transcriber.memory import is_out_of_memory, release_memory

CLIPS_S = (30.0, 7.0)
"""Lengths of the clips, s; no longer than the model's window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeBenchmark:
    """What is measured.

    model, adapter: which weights, as for `dgasr transcribe`; with `has_random_weights` only the sizes count.
    has_random_weights: draw the weights instead of loading them.
    reduction: what is made smaller, with random weights.
    compile: torch compiles the decoder of `ours`, before anything is timed.
    device: `auto`, `cpu` or `cuda`.
    dtype: of random weights, a name of torch.
    batches: segments at once.
    canvas: tokens of every canvas; 0 for the bucket of each clip's length.
    steps: denoising steps of every canvas.
    engines: `ours`, `transformers`.
    rounds: batches timed after one to warm up.
    """

    model: str = "tiny"
    adapter: str | None = None
    has_random_weights: bool = False
    reduction: Reduction = field(default_factory=Reduction)
    compile: bool = False
    device: str = "auto"
    dtype: str = "bfloat16"
    batches: tuple[int, ...] = (1, 16)
    canvas: int = 0
    steps: int = 8
    engines: tuple[str, ...] = ("ours", "transformers")
    rounds: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One measurement; `null` where the memory did not hold it."""

    engine: str
    clip_s: float
    batch: int
    canvas: int
    rtfx: float | None = None
    """Seconds of audio per second."""
    ms_per_step: float | None = None
    """All of a batch's time but mel, encoder, projector, ctc and prefill, by step; for `transformers` the whole."""
    share_of_bound: float | None = None
    """Least time by the machine's rates / measured time."""
    peak_bytes: int | None = None
    """Of the device's memory, weights with it; `null` on the CPU."""
    phases_s: dict[str, float] | None = None
    """Seconds of one batch by phase, in a run of its own in which each phase waits for the device; `ours` only."""
    tokens_per_expert: dict[str, float] | None = None
    """Mean, least and most in one step, and the share of experts with any; `ours` only."""


def main(benchmark: DecodeBenchmark, json_path: Path | None = None) -> None:
    """Print a table as it comes, and a line of JSON; write the JSON to a file too where asked."""
    device = choose_device(benchmark.device)
    model = _model(benchmark, device)
    if benchmark.compile:
        model.compile_decoder()
    rates = measure_rates(device, model.head_weight.dtype)
    write = sys.stdout.write
    write(_heading(benchmark, model, rates))
    write(
        f"{'engine':<13}{'clip s':>7}{'batch':>6}{'canvas':>7}{'RTFx':>9}{'ms/step':>9}{'of bound':>9}{'peak GB':>8}\n"
    )
    measured = []
    for row in measure(benchmark, model, rates):
        measured.append(row)
        write(_line(row))
        sys.stdout.flush()
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    figures = {"benchmark": "decode", "machine": machine, "rates": asdict(rates), **asdict(benchmark)}
    text = json.dumps({**figures, "measured": [asdict(row) for row in measured]})
    write(text + "\n")
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")


def measure(benchmark: DecodeBenchmark, model: AsrModel, rates: Rates) -> Iterator[Measured]:
    """Measure every engine at every batch and clip length.

    Raises:
        ConfigError: an engine that is not known.
    """
    unknown = {*benchmark.engines} - {*ENGINES}
    if unknown:
        raise ConfigError(f"--engine {', '.join(sorted(unknown))}: choose of {', '.join(ENGINES)}.")
    window_s = model.config.window_samples / 16_000
    recipe = build_recipe(model.config, model.identity)
    recipe = replace(recipe, decode=fixed_steps(recipe, benchmark.steps))
    for clip_s in sorted({min(clip_s, window_s) for clip_s in CLIPS_S}, reverse=True):
        canvas = benchmark.canvas or model.config.canvas.bucket_for(clip_s)
        for batch in benchmark.batches:
            for engine in benchmark.engines:
                try:
                    yield _measure_one(benchmark, model, recipe, rates, engine, clip_s, batch, canvas)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    yield Measured(engine=engine, clip_s=clip_s, batch=batch, canvas=canvas)
                release_memory()


def _measure_one(
    benchmark: DecodeBenchmark, model: AsrModel, recipe: Recipe, rates: Rates, engine: str, clip_s: float, batch: int,
    canvas: int,
) -> Measured:  # fmt: skip
    decode, device = ENGINES[engine], model.device
    segments = noise_segments(model.config, clip_s, batch * benchmark.rounds)
    decode(model, recipe, segments[:batch], batch, canvas)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch(device)
    started = watch.now()
    decode(model, recipe, segments, batch, canvas)
    wall_s = (watch.now() - started) / benchmark.rounds  # of one batch
    peak_bytes = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    work = window_work(model.config, batch, canvas, clip_s)
    width = model.head_weight.element_size()
    least_s = sum(
        part.seconds(rates, width) * (benchmark.steps if phase in ("body", "tail") else 1)
        for phase, part in work.items()
    )
    phases_s, before_s, experts = None, 0.0, None
    if engine == "ours":
        phases_s, experts = _phases(model, recipe, segments[:batch], batch, canvas)
        before_s = sum(phases_s[phase] for phase in ("mel", "encoder", "projector", "ctc", "prefill"))
    return Measured(
        engine=engine, clip_s=clip_s, batch=batch, canvas=canvas, rtfx=round(batch * clip_s / wall_s, 2),
        ms_per_step=round(1000 * max(wall_s - before_s, 0.0) / benchmark.steps, 3),
        share_of_bound=round(least_s / wall_s, 4), peak_bytes=peak_bytes, phases_s=phases_s, tokens_per_expert=experts,
    )  # fmt: skip


def _phases(
    model: AsrModel, recipe: Recipe, segments: Any, batch: int, canvas: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Time one batch by phase, and see how evenly its tokens are routed."""
    watch, counts = Stopwatch(model.device), list[Tensor]()
    started = watch.now()
    with phases_of(model, watch):
        ENGINES["ours"](model, recipe, segments, batch, canvas)
    whole_s = watch.now() - started
    phases = {phase: round(watch.seconds[phase], 5) for phase in PHASES[:-1]}
    phases[PHASES[-1]] = round(whole_s - sum(phases.values()), 5)
    with tokens_per_expert(model, counts):
        ENGINES["ours"](model, replace(recipe, decode=fixed_steps(recipe, 1)), segments, batch, canvas)
    routed = torch.stack(counts).double()  # [layers, experts]
    experts = {"mean": float(routed.mean()), "least": float(routed.min()), "most": float(routed.max()),
               "used": float((routed > 0).double().mean())}  # fmt: skip
    return phases, {name: round(value, 3) for name, value in experts.items()}


def _model(benchmark: DecodeBenchmark, device: torch.device) -> AsrModel:
    if benchmark.has_random_weights:
        return random_model(benchmark.model, benchmark.reduction, device, getattr(torch, benchmark.dtype))
    if benchmark.reduction != Reduction():
        raise ConfigError("--layers, --experts and --vocabulary need --random-weights: trained ones have their sizes.")
    return load(benchmark.model, adapter=benchmark.adapter, device=benchmark.device)


def _heading(benchmark: DecodeBenchmark, model: AsrModel, rates: Rates) -> str:
    num = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{model.identity.name}: {num:,} parameters, {model.head_weight.dtype} on {model.device}; "
        f"{benchmark.steps} steps; copies at {rates.copy_bytes / 1e9:.1f} GB/s, products at "
        f"{rates.flops / 1e12:.3f} TFLOP/s\n"
    )


def _line(row: Measured) -> str:
    start = f"{row.engine:<13}{row.clip_s:>7.0f}{row.batch:>6}{row.canvas:>7}"
    if row.rtfx is None:
        return f"{start}  out of memory\n"
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f}"
    line = f"{start}{row.rtfx:>9.1f}{row.ms_per_step:>9.2f}{row.share_of_bound:>9.1%}{peak:>8}\n"
    if row.phases_s is not None:
        whole = sum(row.phases_s.values())
        line += "    " + ", ".join(f"{name} {part / whole:.0%}" for name, part in row.phases_s.items()) + "\n"
    if row.tokens_per_expert is not None:
        each = row.tokens_per_expert
        line += f"    tokens per expert {each['mean']:.0f} ({each['least']:.0f} to {each['most']:.0f}), "
        line += f"{each['used']:.0%} of experts used\n"
    return line
