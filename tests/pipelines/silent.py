"""Flows without a model: a transcriber that hears nothing, and recordings that are worth no more."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript, silent_transcript
from dgasr.stages.engine import Engine
from pipelines import request, transcribe


class SilentTranscriber:
    """Hears nothing in anything."""

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        for item in features:
            yield silent_transcript(item.segment, "en")


def start_silently(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let flows of this process find a silent engine of this recipe, whatever they ask for."""
    fake = Engine(recipe=recipe, transcriber=SilentTranscriber(), device="cpu")
    monkeypatch.setattr(transcribe, "start_engine", lambda config: fake)
    monkeypatch.setattr(request, "recipe_of", lambda config: recipe)


def write_noise(folder: Path, names: str) -> Path:
    """Write a second of noise for each letter of `names`; returns the folder."""
    folder.mkdir()
    generator = np.random.default_rng(3)
    for name in names:
        soundfile.write(folder / f"{name}.wav", 0.1 * generator.standard_normal(16_000), 16_000)
    return folder
