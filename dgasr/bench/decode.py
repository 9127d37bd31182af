"""Speed of decoding on this machine: waveforms to finished canvases, by batch, clip length and engine.

Every canvas takes all its steps, so figures of trained and random weights compare; text is neither rescored nor read
from it, which on real weights adds a pass over segments where CTC hears another text, and alignment on the CPU. The
weights, and how the audio sounds, do not change the work.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from dgasr.bench.bound import Rates, measure_rates
from dgasr.bench.decode_case import DecodeCase
from dgasr.bench.decode_engines import ENGINES, fixed_steps
from dgasr.bench.decode_figures import HEAD, Measured, compare, line_of, lines_of
from dgasr.bench.decode_model import Reduction, random_model
from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.identity import Quantize
from dgasr.model.quantize import quantize
from dgasr.recipe import build_recipe
from dgasr.transcriber.loading import choose_device, load

CLIPS_S = (30.0, 7.0)
"""Lengths of clips that figures are told for, s."""

LARGEST = 0
"""In place of a batch: the largest that the memory holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeBenchmark:
    """What is measured.

    model, adapter: which weights, as for `dgasr transcribe`; with `has_random_weights` only the sizes count.
    has_random_weights: draw the weights instead of loading them.
    reduction: what is made smaller, with random weights.
    compile: torch compiles the decoder of `ours`, before anything is timed.
    quantize: what the backbone's matrices are kept as, as for `dgasr transcribe`.
    device: `auto`, `cpu` or `cuda`.
    dtype: of random weights, a name of torch.
    clips_s: lengths of the clips; longer than the model's window is its window.
    batches: segments at once; `LARGEST` for as many as the memory holds, which each engine finds for itself.
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
    quantize: Quantize = "none"
    device: str = "auto"
    dtype: str = "bfloat16"
    clips_s: tuple[float, ...] = CLIPS_S
    batches: tuple[int, ...] = (1, 16)
    canvas: int = 0
    steps: int = 8
    engines: tuple[str, ...] = ("ours", "transformers")
    rounds: int = 2


def main(benchmark: DecodeBenchmark, json_path: Path | None = None) -> None:
    """Print a table as it comes, and a line of JSON; write the JSON to a file too where asked."""
    device = choose_device(benchmark.device)
    if LARGEST in benchmark.batches and device.type != "cuda":
        raise ConfigError(
            "--batch max needs a GPU: the host kills who asks for too much of its own memory. Give several batches; "
            "the peak of each tells what a row takes."
        )
    model = _model(benchmark, device)
    if benchmark.compile:
        model.compile_decoder()
    rates = measure_rates(device, model.head_weight.dtype)
    write = sys.stdout.write
    write(_heading(benchmark, model, rates))
    write(HEAD)
    measured = []
    for row in measure(benchmark, model, rates):
        measured.append(row)
        write(line_of(row))
        sys.stdout.flush()
    comparisons = compare(measured)
    write(lines_of(comparisons))
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    figures = {"benchmark": "decode", "machine": machine, "rates": asdict(rates), **asdict(benchmark)}
    found = {"measured": [asdict(row) for row in measured], "comparisons": [asdict(each) for each in comparisons]}
    text = json.dumps({**figures, **found})
    write(text + "\n")
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")


def measure(benchmark: DecodeBenchmark, model: AsrModel, rates: Rates) -> Iterator[Measured]:
    """Measure every engine at every batch and clip length.

    Raises:
        ConfigError: an engine that is not known, or clips without length.
    """
    if min(benchmark.clips_s) <= 0:
        raise ConfigError(f"--clip {min(benchmark.clips_s)}: clips must be longer than 0 s.")
    unknown = {*benchmark.engines} - {*ENGINES}
    if unknown:
        raise ConfigError(f"--engine {', '.join(sorted(unknown))}: choose of {', '.join(ENGINES)}.")
    window_s = model.config.window_samples / 16_000
    recipe = build_recipe(model.config, model.identity)
    recipe = replace(recipe, decode=fixed_steps(recipe, benchmark.steps))
    for clip_s in sorted({min(clip_s, window_s) for clip_s in benchmark.clips_s}, reverse=True):
        canvas = benchmark.canvas or model.config.canvas.bucket_for(clip_s)
        for batch in benchmark.batches:
            for engine in benchmark.engines:
                case = DecodeCase(
                    model=model, recipe=recipe, engine=engine, clip_s=clip_s, canvas=canvas, rounds=benchmark.rounds,
                )  # fmt: skip
                found = case.measure(rates, case.largest_batch() if batch == LARGEST else batch)
                yield replace(found, is_largest=batch == LARGEST)


def _model(benchmark: DecodeBenchmark, device: torch.device) -> AsrModel:
    if benchmark.has_random_weights:
        model = random_model(benchmark.model, benchmark.reduction, device, getattr(torch, benchmark.dtype))
        if benchmark.quantize != "none":
            quantize(model.backbone)
        return model
    if benchmark.reduction != Reduction():
        raise ConfigError("--layers, --experts and --vocabulary need --random-weights: trained ones have their sizes.")
    return load(benchmark.model, adapter=benchmark.adapter, device=benchmark.device, quantize=benchmark.quantize)


def _heading(benchmark: DecodeBenchmark, model: AsrModel, rates: Rates) -> str:
    num = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{model.identity.name}: {num:,} parameters, {model.head_weight.dtype} on {model.device}; "
        f"{benchmark.steps} steps; copies at {rates.copy_bytes / 1e9:.1f} GB/s, products at "
        f"{rates.flops / 1e12:.3f} TFLOP/s\n"
    )
