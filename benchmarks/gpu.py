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
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.decode_case import Measured, Run, measure
from benchmarks.decode_model import RANDOM_DIGEST, random_model
from benchmarks.machine import Rates, measure_rates
from benchmarks.parity import CASES, COLUMNS, Case, Difference, compare
from benchmarks.parity import row as parity_row
from benchmarks.published import reduced, write_checkpoints
from dgasr.commands.arguments import finite_float, positive_int
from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import choose_fused_experts
from dgasr.model.identity import read_config
from dgasr.model.presets import ModelIdentity
from dgasr.model.pretrained import load_pretrained
from dgasr.tables import markdown_table
from dgasr.transcriber.loading import choose_device, load

logger = logging.getLogger(__name__)

KERNEL_TESTS = ("tests/diffusion/test_vocabulary_kernel.py", "tests/model/test_head_kernel.py")


ON_GPU = (
    Run(batch=16, canvas=192), Run(engine="transformers", batch=16, canvas=192),
    Run(batch=64, canvas=192), Run(batch=64, canvas=128),
    Run(batch=1, canvas=192), Run(engine="transformers", batch=1, canvas=192),
    Run(batch=32, canvas=192), Run(batch=64, canvas=192, steps=4), Run(batch=64, canvas=128, steps=4),
    Run(batch=64, canvas=256), Run(batch=64, canvas=192, chunk=32768),
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, a table of one's own, and how long it may take."""
    add, table = parser.add_argument, "in place of the table's"
    add("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="default: %(default)s")
    add("--model", metavar="tiny|full|DIR",
        help="weights are drawn, but for --adapter (default: full; on a CPU a small one)")  # fmt: skip
    add("--adapter", metavar="FILE|DIR|HUB_ID", help="load the weights, with this on them")
    add("--batch", type=positive_int, nargs="+", metavar="N", help=table)
    add("--canvas", type=positive_int, nargs="+", default=[192], metavar="N", help="with --batch (default: 192)")
    add("--steps", type=positive_int, nargs="+", default=[8], metavar="N", help="with --batch (default: 8)")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    add("--minutes", type=finite_float, default=38.0, metavar="N", help="begin nothing after (default: %(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what has not been run yet, and write the page."""
    options.out.mkdir(parents=True, exist_ok=True)
    device, deadline = choose_device(options.device), time.monotonic() + 60 * options.minutes
    is_gpu = device.type == "cuda"
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
    figures = {"parts": parts.found, "missing": parts.missing}
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (options.out / "report.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)
    beyond = [name for name, part in parts.found.items() if name.startswith("parity-") and not Difference(**part).holds]
    failed = [name for name, why in parts.missing.items() if "no time" not in why]
    return {**figures, "failed": beyond + failed}


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
    return {"run": asdict(run), "measured": asdict(measure(make(), run, rates))}


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
    "engine", "batch", "canvas", "steps", "chunk", "compiled", "RTFx", "ms a step", "of the bound", "peak GB",
    "device busy",
)  # fmt: skip


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
    lines.append("\n## Parity\n" + markdown_table(COLUMNS, map(parity_row, differences)))
    measured = [(Run(**p["run"]), Measured(**p["measured"])) for p in parts.found.values() if "measured" in p]
    lines.append("\n## Speed, from waveforms to transcripts\n" + markdown_table(HEAD, (_row(*own) for own in measured)))
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


def _row(run: Run, found: Measured) -> tuple[object, ...]:
    start = run.engine, run.batch, run.canvas, run.steps, run.chunk, run.is_compiled
    if found.rtfx is None:
        return (*start, "out of memory", None, None, None, None)
    peak = None if found.peak_bytes is None else f"{found.peak_bytes / 1e9:.1f}"
    busy = None if found.busy_share is None else f"{found.busy_share:.0%}"
    return (*start, f"{found.rtfx:.1f}", f"{found.ms_per_step:.2f}", f"{found.share_of_bound:.1%}", peak, busy)
