"""Speed of the whole path on this machine: the sample recordings, read once, then decoded at several batch sizes."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dgasr.errors import ConfigError
from dgasr.records import SegmentFeatures, Shard, seconds
from dgasr.samples import SAMPLES
from dgasr.stages.discover import Listing
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import read_segments

BATCH_SIZES = (1, 4, 16)
MAX_STEPS = (4, 8)

REPEATS = 4
"""How often the samples' speech is decoded: the largest batch is filled several times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One measurement."""

    stage: str
    batch_size: int
    max_steps: int
    audio_s: float
    """Audio that went through, s: all of it for `prepare`, speech alone for `decode`."""
    wall_s: float
    """Time it took after a warm-up, s."""

    @property
    def rtfx(self) -> float:
        """Audio seconds per wall second."""
        return self.audio_s / self.wall_s


def main(arguments: Sequence[str]) -> None:
    """Print a table, and the same as one line of JSON."""
    argparse.ArgumentParser(prog="benchmarks path", description=__doc__).parse_args(arguments)
    timings = measure()
    sys.stdout.write(f"{'stage':<8}  {'batch':>5}  {'steps':>5}  {'audio s':>8}  {'wall s':>7}  {'RTFx':>7}\n")
    for timing in timings:
        sys.stdout.write(
            f"{timing.stage:<8}  {timing.batch_size:>5}  {timing.max_steps:>5}  {timing.audio_s:>8.1f}  "
            f"{timing.wall_s:>7.2f}  {timing.rtfx:>7.1f}\n"
        )
    sys.stdout.write(json.dumps([asdict(timing) | {"rtfx": round(timing.rtfx, 1)} for timing in timings]) + "\n")


def measure() -> list[Timing]:
    """Measure reading, and decoding at every batch size and number of steps.

    Raises:
        ConfigError: the samples are not there.
    """
    recipe = start_engine(EngineConfig()).recipe
    recordings = [r for r in Listing([str(SAMPLES)]) if not r.uri.endswith((".py", ".jsonl", ".pyc"))]
    if not recordings:
        raise ConfigError(f"{SAMPLES}: no samples are there. Make them with `make samples`.")
    with tempfile.TemporaryDirectory(prefix="dgasr-bench-") as folder:
        shard = Shard(shard_id="bench", recordings=tuple(recordings))
        prepare_shard(shard, recipe, f"{folder}/warm-up")
        prepared = prepare_shard(shard, recipe, f"{folder}/part")
        speech = REPEATS * [features for _, features in read_segments(f"{folder}/part") if features is not None]
    timings = [Timing(stage="prepare", batch_size=1, max_steps=0, audio_s=prepared.audio_s, wall_s=prepared.wall_s)]
    for max_steps in MAX_STEPS:
        timings += [_decode(speech, batch_size, max_steps) for batch_size in BATCH_SIZES]
    return timings


def _decode(speech: list[SegmentFeatures], batch_size: int, max_steps: int) -> Timing:
    transcriber = start_engine(EngineConfig(batch_size=batch_size, max_steps=max_steps)).transcriber
    list(transcriber.transcribe(speech[:batch_size]))
    started = time.perf_counter()
    list(transcriber.transcribe(speech))
    wall_s = time.perf_counter() - started
    audio_s = seconds(sum(features.segment.num_samples for features in speech))
    return Timing(stage="decode", batch_size=batch_size, max_steps=max_steps, audio_s=audio_s, wall_s=wall_s)
