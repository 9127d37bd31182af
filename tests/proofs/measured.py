"""One thing measured in a process of its own, so that its time and its peak of memory are its own.

`python -m tests.proofs.measured bare|flow SOURCE LAKE` ends with a line of figures. `bare` reads, cuts and decodes as
`dgasr.transcribe` does, all files in one stream, and keeps the text in memory; `flow` is the flow `transcribe` on the
server that PREFECT_API_URL names, with its work in this process, into a lake. Loading the model counts in neither.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from dgasr.stages.counts import peak_memory_bytes

SAMPLED_S = 0.2
FOUND = "found: "
"""What the line begins with that holds the figures: libraries have more to say on standard error."""

Figures = dict[str, float]


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
    command = [sys.executable, "-m", "tests.proofs.measured", name, str(source), str(lake)]
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
    from dgasr.store.objects import list_objects, open_object

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


MEASURED = {"bare": run_bare, "flow": run_flow}


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


def main() -> None:
    """Measure, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MEASURED)
    parser.add_argument("source", type=Path)
    parser.add_argument("lake")
    options = parser.parse_args()
    found = MEASURED[options.name](options.source, options.lake)
    found["peak memory, MB"] = peak_memory_bytes() / 1e6
    sys.stderr.write(f"\n{FOUND}{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
