"""A model scored on utterances, which go through the front end that transcription has too, into an `Evaluation`.

Knows no command line.
"""

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import numpy as np
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import RecordingError, TooShortError, TruncatedError
from dgasr.evaluation.normalise import Normalizer, base_language
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredSegment, ScoredUtterance
from dgasr.frontend import cut_recording
from dgasr.manifests import Selection, Utterance, num_samples, select_utterances
from dgasr.model.asr import AsrModel
from dgasr.recipe import RESCORE, SEGMENTATION, Recipe, Rescore, SegmentationMethod, build_recipe
from dgasr.records import SAMPLE_RATE_HZ, SegmentFeatures, SegmentTranscript, join_words, seconds, settings
from dgasr.transcriber import Transcriber
from dgasr.transcriber.loading import fitting_batch_size

Transcribe = Callable[[Iterable[SegmentFeatures]], Iterator[SegmentTranscript]]
"""Segments in, a transcript for each out, in any order; what `Transcriber.transcribe` is."""

END_TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 10
"""Audio beyond a manifest's `duration` that counts as rounding and is kept, so that no last sound is lost."""


@settings
class EvaluationConfig:
    """What is scored, and how.

    metric: what the table leads with and the interval is for.
    max_steps: denoising steps allowed a canvas, or `None` for the model's own number.
    language: code for every utterance, or `None` for the one in its manifest row.
    rescore, segmentation: see `dgasr.recipe`.
    num_timed: how many utterances are also transcribed alone, for latency; spread over the sets.
    """

    normalizer: Normalizer
    metric: Literal["wer", "cer"]
    max_steps: int | None
    language: str | None = None
    rescore: Rescore = RESCORE
    segmentation: SegmentationMethod = SEGMENTATION
    num_timed: int = 0


def evaluate(
    utterances: Sequence[Utterance],
    model: AsrModel,
    config: EvaluationConfig,
    batch_size: int,
    on_utterance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a model on utterances.

    `batch_size` segments of any utterances are decoded together, 0 for as many as fit the memory; `on_utterance` is
    called when an utterance's audio has been read.

    Raises:
        ConfigError: a language that the model does not know; before any work.
    """
    config = replace(config, max_steps=config.max_steps or model.config.max_steps)

    def decoder(code: str) -> tuple[Recipe, Transcribe]:
        recipe = build_recipe(
            model.config, model.identity, max_steps=config.max_steps, language=code,
            rescore=config.rescore, segmentation=config.segmentation,
        )  # fmt: skip
        return recipe, Transcriber(model, recipe, batch_size or fitting_batch_size(model, recipe)).transcribe

    return score_utterances(utterances, decoder, config, on_utterance)


def score_utterances(
    utterances: Sequence[Utterance],
    decoder: Callable[[str], tuple[Recipe, Transcribe]],
    config: EvaluationConfig,
    on_utterance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score what transcribes segments.

    `decoder` says for a language how its audio is read, and what transcribes its segments; see `evaluate`.
    """
    groups: dict[str, dict[int, Utterance]] = {}
    for n, utterance in enumerate(utterances):
        groups.setdefault(config.language or base_language(utterance.language), {})[n] = utterance
    decoders = {code: decoder(code) for code in groups}
    scored: dict[int, ScoredUtterance] = {}
    wall_s = 0.0
    for code, group in groups.items():
        part, part_s = transcribe_utterances(group, *decoders[code], on_utterance)
        scored |= part
        wall_s += part_s
    timed: list[tuple[float, float]] = []
    if config.num_timed:
        alone = select_utterances(utterances, Selection(limit=config.num_timed))
        for code in groups:
            own = [u for u in alone if (config.language or base_language(u.language)) == code]
            timed += time_utterances(own, *decoders[code])
    return Evaluation(
        utterances=tuple(scored[n] for n in sorted(scored)), normalizer=config.normalizer, metric=config.metric,
        max_steps=config.max_steps or 0, path="diffusion", rescore=config.rescore, wall_s=wall_s, timed=tuple(timed),
    )  # fmt: skip


def transcribe_utterances(
    utterances: dict[int, Utterance],
    recipe: Recipe,
    transcribe: Transcribe,
    on_utterance: Callable[[], None] = lambda: None,
) -> tuple[dict[int, ScoredUtterance], float]:
    """Transcribe utterances whose segments share batches.

    Their numbers, not their paths, key the decoder's noise, so that scores do not depend on where the corpus lies.

    Returns:
        Each utterance with its hypothesis, broken audio among them; and the time taken after one segment's warm-up, s.
    """
    warming_up = (_Reading(number=n, utterance=utterance) for n, utterance in utterances.items())
    deque(transcribe(islice(_all_segments(warming_up, recipe), 1)), maxlen=0)
    readings = {n: _Reading(number=n, utterance=utterance) for n, utterance in utterances.items()}
    by_recording = {reading.recording_id: reading for reading in readings.values()}
    started = time.perf_counter()
    for transcript in transcribe(_all_segments(readings.values(), recipe, on_utterance)):
        by_recording[transcript.segment.recording_id].transcripts.append(transcript)
    wall_s = time.perf_counter() - started
    return {n: reading.scored() for n, reading in readings.items()}, wall_s


def time_utterances(
    utterances: Iterable[Utterance], recipe: Recipe, transcribe: Transcribe
) -> list[tuple[float, float]]:
    """Transcribe utterances one after the other, each alone, after one that is not counted.

    Returns:
        Of each that can be read its length and the time from its first byte to its last word, s.
    """
    timed: list[tuple[float, float]] = []
    for utterance in utterances:
        for _ in range(1 if timed else 2):
            reading, started = _Reading(number=0, utterance=utterance), time.perf_counter()
            deque(transcribe(_all_segments([reading], recipe)), maxlen=0)
            latency_s = time.perf_counter() - started
        if not reading.is_rejected:
            timed.append((seconds(reading.num_samples), latency_s))
    return timed


def read_waveform(utterance: Utterance, config: AudioConfig) -> tuple[np.ndarray, str | None]:
    """Read the audio of one utterance whole, for a system with a front end of its own.

    Returns:
        Its waveform at `SAMPLE_RATE_HZ`, [samples], and why the audio ends early, `None` where it does not.

    Raises:
        RecordingError: the audio cannot be used.
        OSError: the file cannot be opened.
    """
    reading = _Reading(number=0, utterance=utterance)
    path = utterance.audio_filepath
    with open(path, "rb") as file:
        blocks = list(_stretch(open_audio(file, path, utterance.audio(config)).blocks(), reading))
    return np.concatenate(blocks), reading.failure


def clip_mp3(utterance: Utterance) -> bytes | None:
    """Encode the audio of one utterance for a browser; `None` where it cannot be read."""
    try:
        waveform, _ = read_waveform(utterance, AudioConfig())
    except (RecordingError, OSError):
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLE_RATE_HZ, format="MP3")
    return buffer.getvalue()


@dataclass(kw_only=True, slots=True)
class _Reading:
    """What reading and decoding one utterance has come to so far."""

    number: int
    utterance: Utterance
    num_samples: int = 0
    failure: str | None = None
    is_rejected: bool = False
    transcripts: list[SegmentTranscript] = field(default_factory=list)

    @property
    def recording_id(self) -> str:
        return f"{self.number:032x}"

    def scored(self) -> ScoredUtterance:
        ordered = sorted(self.transcripts, key=lambda transcript: transcript.segment.segment_index)
        kept = () if self.is_rejected else tuple(ordered)
        return ScoredUtterance(
            audio_filepath=self.utterance.audio_filepath, language=self.utterance.language,
            audio_s=seconds(self.num_samples), reference=self.utterance.text,
            hypothesis=join_words(transcript.text for transcript in kept), reference_words=self.utterance.words,
            hypothesis_words=tuple(word for transcript in kept for word in transcript.words),
            segments=tuple(
                ScoredSegment(num_words=len(own.words), flags=own.flags, num_steps=own.num_steps) for own in kept
            ),
            speaker=self.utterance.speaker, set_name=self.utterance.set_name, failure=self.failure,
        )  # fmt: skip


def _all_segments(
    readings: Iterable[_Reading], recipe: Recipe, on_utterance: Callable[[], None] = lambda: None
) -> Iterator[SegmentFeatures]:
    for reading in readings:
        path = reading.utterance.audio_filepath
        try:
            with open(path, "rb") as file:
                blocks = _stretch(open_audio(file, path, reading.utterance.audio(recipe.audio)).blocks(), reading)
                for _, features in cut_recording(blocks, reading.recording_id, recipe):
                    if features is not None:
                        yield features
        except (RecordingError, OSError) as error:
            reading.failure, reading.is_rejected, reading.num_samples = str(error), True, 0
        on_utterance()


def _stretch(blocks: Iterator[np.ndarray], reading: _Reading) -> Iterator[np.ndarray]:
    """Pass on the samples of the utterance, note their number, and end where the audio breaks off."""
    start = num_samples(reading.utterance.offset)
    end = start + num_samples(reading.utterance.duration)
    position = 0
    held = np.zeros(0, dtype=np.float32)  # what lies beyond the end: kept if the file ends within the tolerance
    try:
        for block in blocks:
            inside = block[max(start - position, 0) : max(end - position, 0)]
            held = np.concatenate([held, block[max(end - position, 0) :]])
            position += len(block)
            reading.num_samples += len(inside)
            yield inside
            if len(held) > END_TOLERANCE_SAMPLES:
                return
    except TruncatedError as error:
        reading.failure = str(error)
    reading.num_samples += len(held)
    if reading.num_samples == 0:
        raise TooShortError(
            f"{reading.utterance.audio_filepath}: ends before {reading.utterance.offset} s, where the manifest lets "
            "the utterance start. Correct `offset`."
        )
    yield held
