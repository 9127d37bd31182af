"""Speed on this machine: the front end on one core; the sample recordings, read and decoded at several batch sizes."""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import soundfile

from benchmarks import print_table
from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ConfigError
from dgasr.features import FeatureConfig, log_mel
from dgasr.records import SAMPLE_RATE_HZ, SegmentFeatures, Shard, seconds
from dgasr.samples import SAMPLES
from dgasr.segmentation import SegmentationConfig, cut_at_silence
from dgasr.stages.discover import Listing
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import read_segments

BATCH_SIZES, MAX_STEPS = (1, 4, 16), (4, 8)

REPEATS = 4
"""How often the samples' speech is decoded: the largest batch is filled several times."""

DURATION_S = 600
"""Length of the made recording, s."""

ROUNDS = 3
"""Each figure is the best of this many: another process can only make it slower."""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Take no flags."""


def run(_: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds of audio per second: of processor time by the front end's stages, of wall time by the path's."""
    flac = _speech_like_flac()
    frontend = {f"{window_s} s": _measure(flac, window_s * SAMPLE_RATE_HZ) for window_s in (8, 30)}
    print_table(["window", *next(iter(frontend.values()))], [[name, *row.values()] for name, row in frontend.items()])
    path = measure()
    print_table(list(path[0]), [list(row.values()) for row in path])
    return {"audio_s": DURATION_S, "frontend": frontend, "path": path}


def measure() -> list[dict[str, Any]]:
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
    rows = [_row("prepare", 1, 0, prepared.audio_s, prepared.wall_s)]
    return rows + [_decode(speech, batch_size, steps) for steps in MAX_STEPS for batch_size in BATCH_SIZES]


def _decode(speech: list[SegmentFeatures], batch_size: int, max_steps: int) -> dict[str, Any]:
    transcriber = start_engine(EngineConfig(batch_size=batch_size, max_steps=max_steps)).transcriber
    list(transcriber.transcribe(speech[:batch_size]))
    started = time.perf_counter()
    list(transcriber.transcribe(speech))
    wall_s = time.perf_counter() - started
    return _row("decode", batch_size, max_steps, seconds(sum(own.segment.num_samples for own in speech)), wall_s)


def _row(stage: str, batch_size: int, max_steps: int, audio_s: float, wall_s: float) -> dict[str, Any]:
    """Make a row: `audio_s` is all audio for `prepare`, speech alone for `decode`."""
    return {
        "stage": stage, "batch": batch_size, "steps": max_steps, "audio_s": audio_s, "wall_s": wall_s,
        "rtfx": round(audio_s / wall_s, 1),
    }  # fmt: skip


def _measure(flac: bytes, window_samples: int) -> dict[str, float]:
    """Measure the stages alone and together, in × realtime."""
    features = FeatureConfig(window_samples=window_samples)
    blocks = list(_read(flac))
    segments = [waveform for _, waveform in cut_at_silence(blocks, window_samples, SegmentationConfig())]
    stages: dict[str, Callable[[], Iterable[object]]] = {
        "decode": lambda: _read(flac),
        "segment": lambda: cut_at_silence(blocks, window_samples, SegmentationConfig()),
        "mel": lambda: (log_mel(segment, features) for segment in segments),
        "together": lambda: (
            log_mel(segment, features)
            for _, segment in cut_at_silence(_read(flac), window_samples, SegmentationConfig())
        ),
    }
    return {name: round(DURATION_S / _best_s(stage), 1) for name, stage in stages.items()}


def _read(flac: bytes) -> Iterable[np.ndarray]:
    return open_audio(io.BytesIO(flac), "made speech", AudioConfig()).blocks()


def _best_s(stage: Callable[[], Iterable[object]]) -> float:
    """Use up a stage's output a few times; processor time of the fastest, s."""
    times_s = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in stage():
            pass
        times_s.append(time.process_time() - started)
    return min(times_s)


def _speech_like_flac() -> bytes:
    """Make noise in syllables and phrases, as costly to decode as a clean reading (about 19 kB/s at 16 kHz)."""
    generator = np.random.default_rng(0)
    time_s = np.arange(DURATION_S * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    syllables = np.square(np.sin(2 * np.pi * 2.5 * time_s)) * (np.sin(2 * np.pi * 0.15 * time_s) > -0.8)
    samples = (0.05 * syllables + 1e-4) * generator.standard_normal(time_s.size)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()
