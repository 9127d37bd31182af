"""The command line with an engine that needs no model, and a small archive."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.cli import main
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript, Word
from dgasr.stages import engine

RATE_HZ = 16_000


class OneWordTranscriber:
    """Hears "hello" in every segment."""

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        for item in features:
            start, end = item.segment.start_sample, item.segment.end_sample
            word = Word(word="hello", start_sample=start, end_sample=end, confidence=0.5)
            yield SegmentTranscript(
                segment=item.segment, text="hello", language="en", words=(word,), timing_source="ctc", confidence=0.5,
                flags=("low_confidence",), num_steps=1, canvas_tokens=8,
            )  # fmt: skip


@pytest.fixture(autouse=True)
def fake_engine(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = engine.Engine(recipe=recipe, transcriber=OneWordTranscriber(), device="cpu")
    monkeypatch.setattr(engine, "start_engine", lambda config: fake)
    monkeypatch.setattr(engine, "recipe_of", lambda config: recipe)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two recordings of two seconds."""
    folder = tmp_path / "archive"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for name in ("one", "two"):
        syllables = 0.1 + 0.1 * np.sin(2 * np.pi * 3 * np.arange(2 * RATE_HZ) / RATE_HZ)
        soundfile.write(folder / f"{name}.wav", syllables * generator.standard_normal(2 * RATE_HZ), RATE_HZ)
    return folder


@pytest.fixture
def dgasr(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Function that runs a command: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse leaves this way
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
