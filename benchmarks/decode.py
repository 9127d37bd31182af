"""Speed of decoding on this machine: waveforms to transcripts, by batch, clip length and engine.

Every canvas takes all its steps, and of random weights every text is rescored and read, so figures of trained and
random weights compare: CTC, rescoring and alignment are in them. The weights, and how the audio sounds, do not change
the work.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import get_args

import torch

from benchmarks.decode_case import ENGINES, DecodeCase, Measured, fixed_steps
from benchmarks.decode_model import Reduction, random_model
from benchmarks.machine import Rates, measure_rates
from dgasr.commands.arguments import check_output_file, finite_float, positive_int
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
class Comparison:
    """Ours / transformers in one run, for one length of clips."""

    clip_s: float
    batch: int
    """Of ours."""
    batch_ratio: float
    """Other than 1 where each engine has the largest batch that it can hold."""
    rtfx_ratio: float


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


def main(arguments: Sequence[str]) -> None:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(prog="benchmarks decode", description=__doc__)
    add = parser.add_argument
    add("--model", default="tiny", metavar="tiny|full|DIR", help="default: tiny")
    add("--adapter", metavar="FILE|DIR|HUB_ID", help="projector and LoRA to put on the model")
    add("--random-weights", action="store_true", help="draw the weights: speed without a checkpoint")
    add("--layers", type=positive_int, default=0, metavar="N", help="of the backbone, drawn weights only")
    add("--experts", type=positive_int, default=0, metavar="N", help="of a layer, drawn weights only")
    add("--vocabulary", type=positive_int, default=0, metavar="N", help="entries, drawn weights only")
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of drawn weights")
    batches = "segments at once; max: what the GPU's memory holds, found for each engine (default: 1 16)"
    add("--batch", type=_batch, nargs="+", default=(1, 16), metavar="N|max", help=batches)
    add("--clip", type=finite_float, nargs="+", default=CLIPS_S, metavar="S", help="default: 30 7")
    add("--rounds", type=positive_int, default=2, metavar="N", help="batches timed (default: 2)")
    add("--canvas", type=positive_int, default=0, metavar="N", help="tokens (default: by clip length)")
    add("--steps", type=positive_int, default=8, metavar="N", help="of every canvas (default: 8)")
    add("--engine", nargs="+", choices=tuple(ENGINES), default=tuple(ENGINES), help="default: both")
    add("--compile", action="store_true", help="let torch compile the decoder of ours")
    add("--quantize", choices=get_args(Quantize), default="none", help="default: %(default)s")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args(arguments)
    check_output_file("--json", options.json)
    benchmark = DecodeBenchmark(
        model=options.model, adapter=options.adapter, has_random_weights=options.random_weights,
        reduction=Reduction(layers=options.layers, experts=options.experts, vocabulary=options.vocabulary),
        compile=options.compile, quantize=options.quantize, device=options.device, dtype=options.dtype,
        clips_s=tuple(options.clip), batches=tuple(options.batch), canvas=options.canvas, steps=options.steps,
        engines=tuple(options.engine), rounds=options.rounds,
    )  # fmt: skip
    report(benchmark, options.json)


def _batch(text: str) -> int:
    return LARGEST if text == "max" else positive_int(text)


def report(benchmark: DecodeBenchmark, json_path: Path | None = None) -> None:
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
        ConfigError: clips without length.
    """
    if min(benchmark.clips_s) <= 0:
        raise ConfigError(f"--clip {min(benchmark.clips_s)}: clips must be longer than 0 s.")
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
    return load(
        benchmark.model, adapter=benchmark.adapter, device=benchmark.device, quantize=benchmark.quantize, compiled=False
    )  # fmt: skip


def _heading(benchmark: DecodeBenchmark, model: AsrModel, rates: Rates) -> str:
    num = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{model.identity.name}: {num:,} parameters, {model.head_weight.dtype} on {model.device}; "
        f"{benchmark.steps} steps; copies at {rates.copy_bytes / 1e9:.1f} GB/s, products at "
        f"{rates.flops / 1e12:.3f} TFLOP/s\n"
    )


HEAD = f"{'engine':<13}{'clip s':>7}{'batch':>6}{'canvas':>7}{'RTFx':>9}{'ms/step':>9}{'of bound':>9}{'peak GB':>8}\n"


def line_of(row: Measured) -> str:
    """Write a measurement as lines of the table under `HEAD`."""
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


def compare(measured: Sequence[Measured]) -> list[Comparison]:
    """Set ours beside transformers wherever both were measured."""
    rows = {(row.engine, row.clip_s, row.is_largest or row.batch): row for row in measured if row.rtfx}
    found = []
    for (engine, clip_s, batch), ours in rows.items():
        theirs = rows.get(("transformers", clip_s, batch))
        if engine == "ours" and theirs is not None and ours.rtfx and theirs.rtfx:
            found.append(
                Comparison(
                    clip_s=clip_s, batch=ours.batch, batch_ratio=round(ours.batch / theirs.batch, 2),
                    rtfx_ratio=round(ours.rtfx / theirs.rtfx, 2),
                )
            )  # fmt: skip
    return found


def lines_of(comparisons: Iterable[Comparison]) -> str:
    """Write comparisons, a line each."""
    return "".join(
        f"ours / transformers, {each.clip_s:.0f} s, batch {each.batch}: {each.rtfx_ratio:.2f} times the RTFx"
        + ("" if each.batch_ratio == 1 else f", {each.batch_ratio:.2f} times the batch")
        + "\n"
        for each in comparisons
    )
