"""What the flow costs beside the bare library: wall and processor time, and memory over many recordings and a long one.

    python -m tests.proofs.costs --recordings 1000 --hours 10

Each measurement is a process of its own, so that its time and its peak of memory are its own. `bare` reads, cuts and
decodes as `dgasr.transcribe` does, all files in one stream, and keeps the text in memory; `flow` is the flow
`transcribe` on a Prefect server beside it, with its work in this process, into a lake. Loading the model counts in
neither. Both take turns (bare, flow, flow, bare, and so on), so that a machine that becomes faster or slower meanwhile
favours neither.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import soundfile

from dgasr.samples import SAMPLES
from dgasr.stages.counts import peak_memory_bytes
from tests.proofs.archive import make_archive
from tests.proofs.cluster import Cluster
from tests.proofs.proof import make_parser, prove, say

MAX_RATIO = 1.10
"""Time of the flow over the library's that is still all right."""

MAX_GROWTH_MB = 2.0
"""Growth of resident memory over 1,000 recordings that still counts as none: what the allocator moves."""

MAX_MB = 1000.0
"""Peak of memory over the long recording that is still all right."""

WORDS = 12
"""Most words in a recording: about eight seconds."""

MADE = 200
"""Different recordings of the memory's archive; more files than these are the same again under other names."""

SAMPLED_S = 0.2
FOUND = "found: "
"""What the line begins with that holds the figures: libraries have more to say on standard error."""

Figures = dict[str, float]


def main() -> int:
    """Run the proof and print what was found, or measure one thing for the process that does."""
    parser = make_parser(__doc__, 1000)
    parser.add_argument("--pairs", type=int, default=2, help="how often time is measured (2)")
    parser.add_argument("--hours", type=int, default=10, help="length of the long recording (10)")
    parser.add_argument("--measure", nargs=3, metavar=("NAME", "SOURCE", "LAKE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, source, lake = options.measure
        found = {"bare": run_bare, "flow": run_flow}[name](Path(source), lake)
        found["peak memory, MB"] = peak_memory_bytes() / 1e6
        sys.stderr.write(f"\n{FOUND}{json.dumps(found)}\n")
        return 0
    return prove("costs", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[Figures, list[str]]:
    """Measure time and memory; figures, and what is not as it should be."""
    cluster.start_prefect()
    found, failures = check_time(cluster, options)
    of_memory, too_much = check_memory(cluster, options)
    return found | of_memory, failures + too_much


def check_time(cluster: Cluster, options: argparse.Namespace) -> tuple[Figures, list[str]]:
    """Measure library and flow in turns."""
    archive = cluster.folder / "archive"
    make_archive(archive, options.recordings, seed=options.seed, is_withheld=False, num_words=WORDS, has_bad=False)
    measured: dict[str, list[Figures]] = {"bare": [], "flow": []}
    for turn in range(options.pairs):
        for name in ("bare", "flow") if turn % 2 == 0 else ("flow", "bare"):
            lake = cluster.folder / f"lake-{turn}"
            measured[name].append(measure(name, archive, lake, cluster.processes.environment))
            say(f"{name} {turn + 1}", measured[name][-1])
    found, failures = {}, []
    for kind in ("wall", "CPU"):
        both = {name: sum(values[f"{kind}, s"] for values in turns) for name, turns in measured.items()}
        ratio = both["flow"] / both["bare"]
        found |= {f"{name}: {kind}, s, of each": s / options.pairs for name, s in both.items()}
        found[f"{kind} time of the flow over the library"] = ratio
        if ratio > MAX_RATIO:
            failures.append(f"the flow takes {ratio:.3f} times the library's {kind} time, {MAX_RATIO} was wanted")
    words = {values["words"] for turns in measured.values() for values in turns}
    if len(words) > 1:
        failures.append(f"flow and library heard different numbers of words: {words}")
    return found | {"words": words.pop()}, failures


def check_memory(cluster: Cluster, options: argparse.Namespace) -> tuple[Figures, list[str]]:
    """Measure whether memory grows with the number of recordings, and how much hours in one take."""
    number, long = 2 * options.recordings, f"{options.hours} h recording"
    write_many(cluster.folder, number, options.seed)
    write_hours(cluster.folder / "long.flac", options.hours)
    measured = {}
    for name, source in ((f"{number} recordings", "many"), (long, "long.flac")):
        lake = cluster.folder / f"lake-{source}"
        measured[name] = measure("flow", cluster.folder / source, lake, cluster.processes.environment)
        say(name, measured[name])
    found = {f"{name}: {key}": value for name, values in measured.items() for key, value in values.items()}
    growth_mb = found.pop(f"{number} recordings: growth, MB") * 1000 / (number / 2)
    del found[f"{long}: growth, MB"]
    failures, peak_mb = [], found[f"{long}: peak memory, MB"]
    if growth_mb > MAX_GROWTH_MB:
        failures.append(f"memory grows by {growth_mb:.1f} MB over 1,000 recordings, {MAX_GROWTH_MB} was wanted")
    if peak_mb > MAX_MB:
        failures.append(f"{long} took {peak_mb:.0f} MB, at most {MAX_MB:.0f} was wanted")
    return found | {"growth of memory over 1,000 recordings, MB": growth_mb}, failures


def write_many(folder: Path, number: int, seed: int) -> None:
    """Write short recordings into `folder/many`."""
    make_archive(folder / "made", min(number, MADE), seed=seed, is_withheld=False, num_words=6, has_bad=False)
    (folder / "many").mkdir()
    made = sorted((folder / "made").iterdir())
    for index in range(number):
        path = made[index % len(made)]
        os.link(path, folder / "many" / f"{index:05d}_{path.name}")


def write_hours(path: Path, hours: int) -> None:
    """Write one long recording: the sample of several minutes, again and again."""
    waveform, rate_hz = soundfile.read(SAMPLES / "several_minutes_with_silences.ogg", dtype="int16")
    with soundfile.SoundFile(path, "w", rate_hz, 1, format="FLAC") as file:
        for _ in range(round(hours * 3600 * rate_hz / waveform.size) + 1):
            file.write(waveform)


def measure(name: str, source: Path, lake: Path, environment: Mapping[str, str]) -> Figures:
    """Measure in a new process.

    Args:
        name: `bare` or `flow`.
        source: folder or file that is transcribed.
        lake: folder of the flow's lake; not to be there yet.
        environment: of the process.

    Returns:
        `wall, s` and `CPU, s` of the work, `words`, `peak memory, MB` of the process, and, of a flow, `growth, MB`: of
        its resident memory in the second half of the time.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "tests.proofs.costs", "--measure", name, str(source), str(lake)]
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(FOUND)]
    found: Figures = json.loads(line.removeprefix(FOUND))
    return found


def run_bare(source: Path, lake: str) -> Figures:
    """Transcribe with the library alone."""
    from dgasr.audio import open_audio
    from dgasr.frontend import cut_recording
    from dgasr.records import SegmentFeatures
    from dgasr.stages.engine import EngineConfig, start_engine
    from dgasr.store import list_objects, open_object

    engine = start_engine(EngineConfig())

    def speech() -> Iterator[SegmentFeatures]:
        for recording in list_objects(str(source)):
            with open_object(recording) as file:
                blocks = open_audio(file, recording.uri, engine.recipe.audio).blocks()
                for _, features in cut_recording(blocks, recording.recording_id, engine.recipe):
                    if features is not None:
                        yield features

    with timed() as found:
        transcripts = list(engine.transcriber.transcribe(speech()))
    return found | {"words": sum(len(transcript.words) for transcript in transcripts)}


def run_flow(source: Path, lake: str) -> Figures:
    """Transcribe with the flow."""
    from dgasr.stages.engine import EngineConfig, start_engine
    from dgasr.stages.plan import ShardConfig
    from pipelines.request import PoolsConfig
    from pipelines.transcribe import transcribe

    start_engine(EngineConfig())
    with sampled_memory() as samples_mb, timed() as found:
        summary = asyncio.run(
            transcribe(source=str(source), lake=lake, engine=EngineConfig(), shard=ShardConfig(), pools=PoolsConfig())
        )
    return found | {"words": summary["num_words"], "growth, MB": growth_mb(samples_mb)}


@contextmanager
def timed() -> Iterator[Figures]:
    """Give figures that hold the time of the block once it is over."""
    found: Figures = {}
    wall_s, cpu_s = time.monotonic(), time.process_time()
    yield found
    found |= {"wall, s": time.monotonic() - wall_s, "CPU, s": time.process_time() - cpu_s}


@contextmanager
def sampled_memory() -> Iterator[list[float]]:
    """Note the resident memory of this process, MB, again and again."""
    samples_mb: list[float] = []
    ended, process = threading.Event(), psutil.Process()

    def sample() -> None:
        while not ended.wait(SAMPLED_S):
            samples_mb.append(process.memory_info().rss / 1e6)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield samples_mb
    ended.set()
    thread.join()


def growth_mb(samples_mb: list[float]) -> float:
    """Fit a line through the second half of the samples; growth over that half, MB."""
    half = np.array(samples_mb[len(samples_mb) // 2 :])
    return float(np.polyfit(np.linspace(0.0, 1.0, half.size), half, 1)[0])


if __name__ == "__main__":
    sys.exit(main())
