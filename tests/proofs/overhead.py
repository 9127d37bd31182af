"""What the flow costs beside the bare library, whether memory grows with files, and how much ten hours in one take.

    python -m tests.proofs.overhead --recordings 1000

Each measurement runs in a process of its own. `bare` reads, cuts and decodes as `dgasr.transcribe` does, all files in
one stream, and keeps the text in memory; `flow` does it with the Prefect flow in this process, into a lake.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import soundfile

from dgasr.samples import SAMPLES
from dgasr.stages.process import peak_memory_bytes
from tests.proofs import figures
from tests.proofs.archive import make_archive
from tests.proofs.processes import end_on_signals
from tests.proofs.theatre import Theatre

MAX_RATIO = 1.10
MAX_SLOPE_MB = 2.0
"""Growth of resident memory over 1,000 files that still counts as none: what the allocator moves."""

MAX_MB = 1000.0
HOURS = 10
SAMPLED_S = 0.2
FOUND = "found: "
"""What the line of a measuring process begins with that holds its figures."""

CPU = "CPU with loading the model, s"
WORDS = 12
"""Most words in a recording: about eight seconds."""


def run_bare(source: Path, lake: str) -> dict[str, float]:
    """Transcribe a folder with the library alone."""
    from dgasr.audio import open_audio
    from dgasr.frontend import cut_recording
    from dgasr.records import SegmentFeatures
    from dgasr.stages.engine import start_engine
    from dgasr.stages.engine_config import EngineConfig
    from dgasr.store.objects import list_objects, open_object

    engine = start_engine(EngineConfig())
    started = time.monotonic()

    def speech() -> Iterator[SegmentFeatures]:
        for recording in list_objects(str(source)):
            with open_object(recording) as file:
                blocks = open_audio(file, recording.uri, engine.recipe.audio).blocks()
                for _, features in cut_recording(blocks, recording.recording_id, engine.recipe):
                    if features is not None:
                        yield features

    transcripts = list(engine.transcriber.transcribe(speech()))
    return {"wall, s": time.monotonic() - started, "words": sum(len(found.words) for found in transcripts)}


def run_flow(source: Path, lake: str) -> dict[str, float]:
    """Transcribe a folder with the flow, in this process, on a server that runs already."""
    from dgasr.stages.engine import start_engine
    from dgasr.stages.engine_config import EngineConfig
    from dgasr.stages.plan import ShardConfig
    from pipelines.pools import PoolsConfig
    from pipelines.transcribe import transcribe

    start_engine(EngineConfig())
    started = time.monotonic()
    with _sampled_memory() as samples:
        summary = asyncio.run(
            transcribe(source=str(source), lake=lake, engine=EngineConfig(), shard=ShardConfig(), pools=PoolsConfig())
        )
    return {"wall, s": time.monotonic() - started, "words": summary["num_words"], "slope, MB": _slope_mb(samples)}


def run_command(source: Path, lake: str) -> dict[str, float]:
    """Transcribe a file as a person does at a prompt."""
    from dgasr.cli import main

    main(["transcribe", str(source), "--lake", lake, "--format", "txt"])
    return {}


MEASURED: dict[str, Callable[[Path, str], dict[str, float]]] = {
    "bare": run_bare,
    "flow": run_flow,
    "command": run_command,
}


@contextmanager
def _sampled_memory() -> Iterator[list[float]]:
    """Note the resident memory of this process, MB, again and again."""
    samples: list[float] = []
    ended, process = threading.Event(), psutil.Process()

    def sample() -> None:
        while not ended.wait(SAMPLED_S):
            samples.append(process.memory_info().rss / 1e6)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield samples
    ended.set()
    thread.join()


def _slope_mb(samples: list[float]) -> float:
    """Fit a line through the second half of the samples; growth over that half, MB."""
    half = np.array(samples[len(samples) // 2 :])
    return float(np.polyfit(np.linspace(0.0, 1.0, half.size), half, 1)[0])


def write_hours(path: Path, hours: int) -> None:
    """Write one long recording: the sample of several minutes, again and again."""
    waveform, rate_hz = soundfile.read(SAMPLES / "several_minutes_with_silences.ogg", dtype="int16")
    with soundfile.SoundFile(path, "w", rate_hz, 1, format="FLAC") as file:
        for _ in range(round(hours * 3600 * rate_hz / waveform.size) + 1):
            file.write(waveform)


def main() -> int:
    """Measure and print, or measure one thing for the process that does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    figures.add_arguments(parser, 1000)
    parser.add_argument("--memory-recordings", type=int, default=2000, help="files over which memory is watched (2000)")
    parser.add_argument("--hours", type=int, default=HOURS, help=f"length of the long recording ({HOURS})")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, source, lake = options.measure
        cpu_before = time.process_time()
        found = MEASURED[name](Path(source), lake)
        found[CPU] = time.process_time() - cpu_before
        peak_mb = peak_memory_bytes() / 1e6
        sys.stderr.write(f"\n{FOUND}{json.dumps(found | {'peak memory, MB': peak_mb})}\n")
        return 0
    end_on_signals()
    with (
        tempfile.TemporaryDirectory(prefix="dgasr-overhead-") as folder,
        Theatre(Path(folder), seed=options.seed, OMP_NUM_THREADS="1") as theatre,
    ):
        return _run(options, Path(folder), theatre)


def _run(options: argparse.Namespace, folder: Path, theatre: Theatre) -> int:
    theatre.start_prefect()
    make_archive(
        folder / "archive", options.recordings, seed=options.seed, is_withheld=False, num_words=WORDS, has_bad=False
    )
    many = folder / "many"
    many.mkdir()
    listed = sorted((folder / "archive").iterdir())
    for number in range(options.memory_recordings):
        os.link(listed[number % len(listed)], many / f"{number:05d}_{listed[number % len(listed)].name}")
    write_hours(folder / "long.flac", options.hours)
    found: dict[str, float] = {}
    for name, measured, source in (
        ("bare", "bare", folder / "archive"),
        ("flow", "flow", folder / "archive"),
        ("flow, memory", "flow", many),
        (f"{options.hours} h file", "command", folder / "long.flac"),
    ):
        arguments = ["--measure", measured, str(source), str(folder / f"lake-{name}")]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tests.proofs.overhead", *arguments], env=theatre.company.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
        # DuckDB's bindings have more to say on standard error when the process ends.
        values = json.loads(
            next(line for line in done.stderr.splitlines() if line.startswith(FOUND)).removeprefix(FOUND)
        )
        found |= {f"{name}: {key}": value for key, value in values.items()}
        found[f"{name}: with start-up, s"] = time.monotonic() - started
    slope = found.pop("flow, memory: slope, MB") * 1000 / (options.memory_recordings / 2)
    found |= {
        "wall time of the flow over the library": found["flow: wall, s"] / found["bare: wall, s"],
        "CPU time of the flow over the library": found[f"flow: {CPU}"] / found[f"bare: {CPU}"],
        "growth of memory over 1,000 files, MB": slope,
    }
    return figures.finish("overhead", options, found, _failures(found, slope, f"{options.hours} h file"))


def _failures(found: dict[str, float], slope: float, long: str) -> list[str]:
    failures = []
    ratio, peak_mb = found["wall time of the flow over the library"], found[f"{long}: peak memory, MB"]
    if ratio > MAX_RATIO:
        failures.append(f"the flow takes {ratio:.2f} times the library's time, at most {MAX_RATIO} was wanted")
    if slope > MAX_SLOPE_MB:
        failures.append(f"memory grows by {slope:.1f} MB over 1,000 files, at most {MAX_SLOPE_MB} was wanted")
    if peak_mb > MAX_MB:
        failures.append(f"{long} took {peak_mb:.0f} MB, at most {MAX_MB:.0f} was wanted")
    if found["flow: words"] != found["bare: words"]:
        failures.append("flow and library heard different numbers of words")
    return failures


if __name__ == "__main__":
    sys.exit(main())
