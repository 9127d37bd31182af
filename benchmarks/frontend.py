"""Speed of the front end on one core: 16 kHz FLAC to waveform, to segments, to log-mel features."""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.features import FeatureConfig, log_mel
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.segmentation import SegmentationConfig, cut_at_silence

DURATION_S = 600
"""Length of the made recording, s."""

ROUNDS = 3
"""Each figure is the best of this many: another process can only make it slower."""


def main(arguments: Sequence[str]) -> None:
    """Print seconds of audio per second of processor time, by stage and window; then the same as JSON."""
    argparse.ArgumentParser(prog="benchmarks frontend", description=__doc__).parse_args(arguments)
    flac = _speech_like_flac()
    figures = {f"{window_s} s": _measure(flac, window_s * SAMPLE_RATE_HZ) for window_s in (8, 30)}
    write = sys.stdout.write
    write(f"front end on one core, {DURATION_S} s of 16 kHz FLAC, times realtime by processor time\n")
    write(f"{'window':>8}{'decode':>10}{'segment':>10}{'mel':>10}{'together':>10}\n")
    for window, row in figures.items():
        write(f"{window:>8}" + "".join(f"{value:>10.0f}" for value in row.values()) + "\n")
    write(json.dumps({"benchmark": "frontend", "audio_s": DURATION_S, "windows": figures}) + "\n")


def _measure(flac: bytes, window_samples: int) -> dict[str, float]:
    """Measure the stages alone and together, in × realtime."""
    features = FeatureConfig(window_samples=window_samples)
    blocks = list(_decode(flac))
    segments = [waveform for _, waveform in cut_at_silence(blocks, window_samples, SegmentationConfig())]
    stages: dict[str, Callable[[], Iterable[object]]] = {
        "decode": lambda: _decode(flac),
        "segment": lambda: cut_at_silence(blocks, window_samples, SegmentationConfig()),
        "mel": lambda: (log_mel(segment, features) for segment in segments),
        "together": lambda: (
            log_mel(segment, features)
            for _, segment in cut_at_silence(_decode(flac), window_samples, SegmentationConfig())
        ),
    }
    return {name: round(DURATION_S / _best_s(stage), 1) for name, stage in stages.items()}


def _decode(flac: bytes) -> Iterable[np.ndarray]:
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
