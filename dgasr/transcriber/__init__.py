"""Audio to transcripts: composes features, model, diffusion and alignment.

Here is one file's way, for a person at a prompt. Archives go through `dgasr.stages`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ConfigError
from dgasr.frontend import cut_channels
from dgasr.model.asr import AsrModel
from dgasr.recipe import SEGMENTATION, Recipe, SegmentationMethod, build_recipe
from dgasr.records import SegmentFeatures, SegmentTranscript, Word, join_words, silent_transcript
from dgasr.transcriber.loading import load
from dgasr.transcriber.segments import Transcriber

__all__ = ["Transcriber", "Transcript", "build_recipe", "load", "transcribe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """What is said in one recording.

    text: of all segments, joined by spaces; where channels are transcribed each by itself, one after the other.
    words: with positions from the recording's first sample, likewise.
    confidence: mean over the words, `None` without any.
    segments: everything that is known, silence included.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float | None
    segments: tuple[SegmentTranscript, ...]


def transcribe(
    audio: str | Path,
    model: AsrModel,
    *,
    max_steps: int | None = None,
    language: str | None = None,
    batch_size: int = 8,
    segmentation: SegmentationMethod = SEGMENTATION,
    audio_config: AudioConfig = AudioConfig(),  # noqa: B008
) -> Transcript:
    """Transcribe one audio file.

    Args:
        audio: path of the file.
        model: from `load`.
        max_steps: denoising steps a canvas gets at most; the model's own number when `None`.
        language: ISO 639-1 code; the model's first language when `None`.
        batch_size: segments decoded together.
        segmentation: what tells pauses, a `speech` model or `loudness` alone.
        audio_config: which track and channels are read, and limits.

    Raises:
        ConfigError: the request is wrong.
        AudioError: the file cannot be used, or ends early.
    """
    recipe = build_recipe(
        model.config, model.identity, max_steps=max_steps, language=language, segmentation=segmentation,
        audio=audio_config,
    )  # fmt: skip
    silent: list[SegmentTranscript] = []
    spoken = list(Transcriber(model, recipe, batch_size).transcribe(_segments(Path(audio), recipe, silent)))
    segments = sorted([*spoken, *silent], key=lambda transcript: transcript.segment.segment_index)
    words = tuple(word for transcript in segments for word in transcript.words)
    return Transcript(
        text=join_words(transcript.text for transcript in segments),
        words=words,
        confidence=float(np.mean([word.confidence for word in words])) if words else None,
        segments=tuple(segments),
    )


def _segments(path: Path, recipe: Recipe, silent: list[SegmentTranscript]) -> Iterator[SegmentFeatures]:
    """Read and cut a file; speech is yielded, silence goes to `silent`."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened ({error.strerror}). Give the path of an audio file.") from error
    with file:
        channels = open_audio(file, str(path), recipe.audio).channels()
        for segment, features in cut_channels(channels, path.name, recipe):
            if features is None:
                silent.append(silent_transcript(segment, recipe.language))
            else:
                yield features
