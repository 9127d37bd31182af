"""All that a GPU has to show, in one run that can be stopped and goes on: loading, parity, kernels, speed by batch.

Each part writes a file of its own into `--out` and is not done again while that lies there; what there is time for is
then told on a page, `report.md`, with all figures in `figures.json`. Without weights (`--adapter`) they are drawn,
which changes neither work nor time. On a CPU the published structure in small is run, to see that all of it works.
"""

import argparse
import itertools
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.decode_case import DecodeCase, Measured, fixed_steps
from benchmarks.decode_model import RANDOM_DIGEST, random_model
from benchmarks.machine import Rates, measure_rates
from benchmarks.parity import CASES, Case, Difference, compare
from benchmarks.parity import report as parity_line
from benchmarks.published import reduced, write_checkpoints
from dgasr.commands.arguments import finite_float, natural_int, positive_int
from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import choose_fused_experts
from dgasr.model.identity import read_config
from dgasr.model.presets import ModelIdentity
from dgasr.model.pretrained import load_pretrained
from dgasr.recipe import build_recipe
from dgasr.transcriber.loading import choose_device, load

logger = logging.getLogger(__name__)

LARGEST = 0
"""In place of a batch; each engine finds its own."""

KERNEL_TESTS = ("tests/diffusion/test_vocabulary_kernel.py", "tests/model/test_head_kernel.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One line of the table: an engine on windows of the model's length."""

    engine: str = "ours"
    batch: int
    """`LARGEST` for the largest that the memory holds."""
    canvas: int
    steps: int = 8
    chunk: int = 8192
    """Vocabulary entries at a time."""
    is_compiled: bool = False

    @property
    def name(self) -> str:
        """Of its file."""
        ways = f"-chunk{self.chunk}" * (self.chunk != Run(batch=1, canvas=1).chunk) + "-compiled" * self.is_compiled
        return f"{self.engine}-batch{self.batch or 'max'}-canvas{self.canvas}-steps{self.steps}{ways}"


ON_GPU = (
    Run(batch=16, canvas=192), Run(engine="transformers", batch=16, canvas=192),
    Run(batch=64, canvas=192), Run(batch=64, canvas=128),
    Run(batch=1, canvas=192), Run(engine="transformers", batch=1, canvas=192),
    Run(batch=32, canvas=192), Run(batch=64, canvas=192, steps=4), Run(batch=64, canvas=128, steps=4),
    Run(batch=64, canvas=256), Run(batch=64, canvas=192, chunk=32768),
    Run(batch=LARGEST, canvas=192), Run(engine="transformers", batch=LARGEST, canvas=192),
    *(Run(batch=batch, canvas=canvas, is_compiled=True) for batch, canvas in ((64, 192), (64, 128), (1, 192))),
)  # fmt: skip
"""What is worth most comes first; compiled runs come last, since compiling takes minutes."""

ON_CPU = (
    Run(batch=2, canvas=16, steps=2), Run(engine="transformers", batch=2, canvas=16, steps=2),
    Run(batch=1, canvas=8, steps=2, chunk=16), Run(batch=2, canvas=16, steps=2, is_compiled=True),
)  # fmt: skip


class Parts:
    """The files of a run: each part is done once, as long as there is time.

    Args:
        folder: where they lie.
        deadline: when nothing new is begun, by `time.monotonic`.
    """

    def __init__(self, folder: Path, deadline: float) -> None:
        self._folder, self._deadline = folder, deadline
        self.found: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def check_request(self, request: dict[str, Any]) -> None:
        """Refuse a folder whose files are of another request; what they say would be taken for this one's."""
        path = self._folder / "request"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != request:
            raise ConfigError(
                f"--out {self._folder}: holds figures of {path.read_text(encoding='utf-8')}. Name another."
            )
        path.write_text(json.dumps(request), encoding="utf-8")

    def do(self, name: str, work: Callable[[], Any]) -> None:
        """Do a part, or take what an earlier run found; what fails is told, and tried again by the next run."""
        path = self._folder / f"{name}.json"
        if path.is_file():
            self.found[name] = json.loads(path.read_text(encoding="utf-8"))
            return
        if time.monotonic() > self._deadline:
            self.missing[name] = "no time was left; run it again"
            return
        sys.stdout.write(f"{name} …\n")
        sys.stdout.flush()
        try:
            found = work()
        except Exception as error:  # whatever one part meets on a machine never seen, the others are still worth having
            logger.exception("%s failed", name)
            self.missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            return
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(path)
        self.found[name] = json.loads(path.read_text(encoding="utf-8"))


def main(arguments: Sequence[str]) -> None:
    """Run what has not been run yet, and write the page.

    Raises:
        IntegrityError: a part failed or parity does not hold; the page says which.
    """
    parser = argparse.ArgumentParser(prog="benchmarks gpu", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="default: %(default)s")
    add(
        "--model",
        metavar="tiny|full|DIR",
        help="weights are drawn, but for --adapter (default: full; on a CPU a small one)",
    )
    add("--adapter", metavar="FILE|DIR|HUB_ID", help="load the weights, with this on them")
    table = "in place of the table's"
    add("--batch", type=natural_int, nargs="+", metavar="N", help=f"{table}; 0: the largest that fits")
    add("--canvas", type=positive_int, nargs="+", default=[192], metavar="N", help="with --batch (default: 192)")
    add("--steps", type=positive_int, nargs="+", default=[8], metavar="N", help="with --batch (default: 8)")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    add("--minutes", type=finite_float, default=38.0, metavar="N", help="begin nothing after (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    device, deadline = choose_device(options.device), time.monotonic() + 60 * options.minutes
    is_gpu = device.type == "cuda"
    if LARGEST in (options.batch or ()) and not is_gpu:
        raise ConfigError("--batch 0 needs a GPU: the host kills who asks for too much of its own memory.")
    parts = Parts(options.out, deadline)
    parts.check_request({"model": options.model, "adapter": options.adapter, "device": device.type})
    runs: Sequence[Run] = ON_GPU if is_gpu else ON_CPU
    if options.batch:
        sizes = itertools.product(options.batch, options.canvas, options.steps, ("ours", "transformers"))
        runs = [Run(batch=batch, canvas=canvas, steps=steps, engine=name) for batch, canvas, steps, name in sizes]
    for case in CASES:
        parts.do(f"parity-{case.name.replace(' ', '-')}", partial(_parity, case, device))
    if is_gpu:
        parts.do("kernels", _test_kernels)
    _speed(parts, options, device, runs)
    page = report(parts)
    (options.out / "figures.json").write_text(json.dumps({"parts": parts.found, "missing": parts.missing}, indent=1))
    (options.out / "report.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)
    beyond = [name for name, part in parts.found.items() if name.startswith("parity-") and not Difference(**part).holds]
    failed = [name for name, why in parts.missing.items() if "no time" not in why]
    if beyond or failed:
        raise IntegrityError(f"{options.out / 'report.md'}: {', '.join([*beyond, *failed])} failed. It says how.")


def _speed(parts: Parts, options: argparse.Namespace, device: torch.device, runs: Sequence[Run]) -> None:
    """Measure the table; the model is only made if something is left to measure."""
    made: list[AsrModel] = []

    def model() -> AsrModel:
        if not made:
            made.append(_load(options, device))
            if device.type == "cuda":
                choose_fused_experts(made[0].backbone)
        return made[0]

    def loading() -> dict[str, Any]:
        started = time.monotonic()
        loaded = model()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = round(time.monotonic() - started, 2)
        return {
            "load_s": seconds, "model": loaded.identity.name, "dtype": str(loaded.head_weight.dtype),
            "parameters": sum(parameter.numel() for parameter in loaded.parameters()),
            "experts": loaded.backbone.config.get_text_config()._experts_implementation,
            "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        }  # fmt: skip

    def machine() -> dict[str, Any]:
        is_gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if is_gpu else f"cpu, {torch.get_num_threads()} threads"
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        rates = measure_rates(device, torch.bfloat16 if is_gpu else torch.float32)
        return {"machine": name, **versions, **asdict(rates)}

    parts.do("machine", machine)
    parts.do("loading", loading)
    found = parts.found.get("machine", {"copy_bytes": 1.0, "flops": 1.0})
    rates = Rates(copy_bytes=found["copy_bytes"], flops=found["flops"])
    for run in runs:
        parts.do(run.name, partial(_measure, run, model, rates))


def _parity(case: Case, device: torch.device) -> dict[str, Any]:
    return asdict(compare(case, device))


def _load(options: argparse.Namespace, device: torch.device) -> AsrModel:
    if options.adapter is not None:
        return load(options.model or "full", adapter=options.adapter, device=options.device, compiled=False)
    if device.type == "cuda" or options.model:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return random_model(options.model or "full", device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), reduced(), torch.float32)
        model = load_pretrained(read_config(folder), dtype=torch.float32, device=device)
    model.identity = ModelIdentity(name="published structure in small", digest=RANDOM_DIGEST)
    return model


def _measure(run: Run, make: Callable[[], AsrModel], rates: Rates) -> dict[str, Any]:
    model = make()
    recipe = build_recipe(model.config, model.identity, segmentation="loudness")
    recipe = replace(recipe, decode=replace(fixed_steps(recipe, run.steps), vocabulary_chunk=run.chunk))
    if run.is_compiled:
        model.compile_decoder("inductor" if model.device.type == "cuda" else "eager")
    case = DecodeCase(
        model=model, recipe=recipe, engine=run.engine, clip_s=model.config.window_samples / 16_000, canvas=run.canvas,
        rounds=1,
    )  # fmt: skip
    batch = case.largest_batch() if run.batch == LARGEST else run.batch
    return {"run": asdict(run), "measured": asdict(case.measure(rates, batch))}


def _test_kernels() -> dict[str, Any]:
    """Run the kernels' tests on the device, without Triton's interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *KERNEL_TESTS], capture_output=True, text=True,
        cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    if done.returncode:
        raise IntegrityError(f"the kernels' tests: {(done.stdout.strip().splitlines() or ['nothing was printed'])[-1]}")
    return {"tests": done.stdout.strip().splitlines()[-1]}


HEAD = (
    "| engine | batch | canvas | steps | chunk | compiled | RTFx | ms a step | of the bound | peak GB | device busy |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def report(parts: Parts) -> str:
    """Write the page: what was found, ours beside transformers, where time goes, and what is missing."""
    machine, loading = parts.found.get("machine", {}), parts.found.get("loading", {})
    lines = [f"# Decoding on {machine.get('machine', 'this machine')}\n\n"]
    if machine:
        lines.append(
            f"torch {machine['torch']}, transformers {machine['transformers']}; copies "
            f"{machine['copy_bytes'] / 1e9:,.1f} GB/s, products {machine['flops'] / 1e12:,.3f} TFLOP/s.\n"
        )
    if loading:
        lines.append(
            f"{loading['model']}, {loading['parameters']:,} parameters, {loading['dtype']}: there after "
            f"{loading['load_s']} s; experts by {loading['experts']}.\n"
        )
    if "kernels" in parts.found:
        lines.append(f"Kernels: {parts.found['kernels']['tests']}\n")
    differences = [Difference(**part) for name, part in parts.found.items() if name.startswith("parity-")]
    lines.append("\n## Parity\n```\n" + "".join(map(parity_line, differences)) + "```\n")
    measured = [(Run(**p["run"]), Measured(**p["measured"])) for p in parts.found.values() if "measured" in p]
    lines.append("\n## Speed, from waveforms to transcripts\n" + HEAD + "".join(_row(*pair) for pair in measured))
    lines.append("\nWhere time goes, a device waited for after each phase:\n\n")
    for run, found in measured:
        if found.phases_s:
            whole = sum(found.phases_s.values())
            shares = ", ".join(f"{phase} {part / whole:.0%}" for phase, part in found.phases_s.items())
            lines.append(f"- {run.name}: {shares}\n")
    theirs = {replace(run, engine="ours"): found.rtfx for run, found in measured if run.engine == "transformers"}
    for run, found in measured:
        beside = theirs.get(run)
        if beside and found.rtfx:
            lines.append(f"\n{run.name}: {found.rtfx / beside:.2f} times the RTFx of transformers' `generate`.\n")
    if parts.missing:
        lines.append("\n## Missing\n" + "".join(f"- {name}: {why}\n" for name, why in parts.missing.items()))
    return "".join(lines)


def _row(run: Run, found: Measured) -> str:
    start = f"| {run.engine} | {found.batch} | {run.canvas} | {run.steps} | {run.chunk} | {run.is_compiled} "
    if found.rtfx is None:
        return f"{start}| out of memory | | | | |\n"
    peak = "" if found.peak_bytes is None else f"{found.peak_bytes / 1e9:.1f}"
    busy = "" if found.busy_share is None else f"{found.busy_share:.0%}"
    return f"{start}| {found.rtfx:.1f} | {found.ms_per_step:.2f} | {found.share_of_bound:.1%} | {peak} | {busy} |\n"
