"""A transcriber that needs no model, and recordings made of tones and silence."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.recipe import Recipe
from dgasr.records import SAMPLE_RATE_HZ, SegmentFeatures, SegmentTranscript, Word
from dgasr.stages.engine import Engine


class FakeTranscriber:
    """Says "sound" over each whole segment, last segment first, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[SegmentFeatures] = []

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        given = list(features)
        self.seen += given
        for item in reversed(given):
            segment = item.segment
            word = Word(word="sound", start_sample=segment.start_sample, end_sample=segment.end_sample, confidence=0.75)
            yield SegmentTranscript(
                segment=segment,
                text="sound",
                language="en",
                words=(word,),
                timing_source="ctc",
                confidence=0.75,
                flags=(),
                num_steps=3,
                canvas_tokens=8,
            )


def engine_of(recipe: Recipe, transcriber: object) -> Callable[[], Engine]:
    """Give what loads an engine without a model."""
    return lambda: Engine(recipe=recipe, transcriber=transcriber, device="cpu")


@pytest.fixture
def transcriber() -> FakeTranscriber:
    return FakeTranscriber()


@pytest.fixture(scope="session")
def make_audio() -> Callable[..., np.ndarray]:
    """Give a function that makes bursts of sound of the given lengths, apart by silences."""

    def make(*bursts_s: float, silence_s: float = 3.0) -> np.ndarray:
        generator = np.random.default_rng(7)
        pieces = [1e-4 * generator.standard_normal(round(silence_s * SAMPLE_RATE_HZ))]
        for burst_s in bursts_s:
            time_s = np.arange(round(burst_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
            loudness = 0.2 + 0.15 * np.sin(2 * np.pi * 3 * time_s)  # rises and falls as syllables do
            pieces += [loudness * np.sin(2 * np.pi * 300 * time_s), pieces[0]]
        return np.concatenate(pieces).astype(np.float32)

    return make


@pytest.fixture
def archive(tmp_path: Path, make_audio: Callable[..., np.ndarray]) -> Path:
    """Two good recordings, one cut off, one that is no audio."""
    return write_archive(tmp_path / "archive", make_audio)


def write_archive(folder: Path, make_audio: Callable[..., np.ndarray]) -> Path:
    folder.mkdir()
    soundfile.write(folder / "a.flac", make_audio(2.0, 3.0), SAMPLE_RATE_HZ)
    soundfile.write(folder / "b.wav", make_audio(1.5), SAMPLE_RATE_HZ)
    soundfile.write(folder / "cut.wav", make_audio(2.0, 2.0), SAMPLE_RATE_HZ)
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp3").write_bytes(b"this is no audio at all, only its name says so. " * 20)
    return folder
