"""Systems that a model is measured beside, on the same utterances: Whisper by two libraries, or pocketsphinx.

faster-whisper decodes greedily, int8, on as many threads; transformers' Whisper likewise, in float32; pocketsphinx has
its own US English models. Each gets the waveform from the project's own reader, so that all systems get the same
samples, and reading counts in every time. What is not used: beams, sampling at rising temperatures, voice activity
detection, the text before. All of these could make it better or slower; greedy decoding is the setting that the
comparison is agreed on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dgasr.audio import AudioConfig
from dgasr.errors import ConfigError, RecordingError
from dgasr.evaluation.normalise import base_language
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredSegment, ScoredUtterance
from dgasr.hypotheses import read_waveform
from dgasr.records import SAMPLE_RATE_HZ, Word, join_words, seconds
from dgasr.training.manifests import Utterance, num_samples

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = {"faster-whisper": "model.bin", "whisper": "model.safetensors"}
"""Systems that `--baseline` and `--model` name with a folder, `KIND:DIR`, and the file that no such folder lacks."""

POCKETSPHINX = "pocketsphinx"
"""The system that needs none."""

MULTILINGUAL_TOKENS = 51_865
"""Of Whisper's vocabulary for all languages; that of its English models is smaller."""

FRAMES_PER_SECOND = 100
"""Of pocketsphinx's word times."""

WINDOW_SAMPLES = 30 * SAMPLE_RATE_HZ
"""What Whisper recognises at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A loaded system."""

    model: Any
    """A `faster_whisper.WhisperModel`, or what has of its interface what is used here."""
    has_words: bool
    """Whether word times and confidences are asked for; they cost time, so that speed is compared without."""
    name: str = "faster-whisper"
    """For people."""


class PocketSphinx:
    """pocketsphinx behind faster-whisper's interface."""

    supported_languages = ("en",)

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL")

    def transcribe(self, waveform: "np.ndarray", **_: object) -> tuple[list[Any], None]:
        """Recognise an utterance, [samples]; one segment, whose words have times (s) and probabilities."""
        self._decoder.start_utt()
        self._decoder.process_raw((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        words = [
            SimpleNamespace(
                word=own.word.partition("(")[0],  # `the(2)` is its second pronunciation
                start=own.start_frame / FRAMES_PER_SECOND,
                end=(own.end_frame + 1) / FRAMES_PER_SECOND,
                probability=min(1.0, self._decoder.get_logmath().exp(own.prob)),
            )
            for own in self._decoder.seg() or ()
            if own.word[0] not in "<["  # silence and noise
        ]
        return [SimpleNamespace(text=" ".join(word.word for word in words), words=words)], None


class TransformersWhisper:
    """transformers' own Whisper behind faster-whisper's interface, a window at a time; it gives no word times."""

    def __init__(self, folder: Path) -> None:
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
        from transformers.models.whisper.tokenization_whisper import LANGUAGES

        self._model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True).float().eval()
        self._features = WhisperFeatureExtractor(feature_size=self._model.config.num_mel_bins)
        self._tokenizer = WhisperTokenizer.from_pretrained(folder, local_files_only=True)
        vocabulary = self._tokenizer.get_vocab()
        self._is_multilingual = self._model.config.vocab_size >= MULTILINGUAL_TOKENS
        codes = [code for code in LANGUAGES if f"<|{code}|>" in vocabulary] if self._is_multilingual else ["en"]
        self.supported_languages = tuple(codes)
        # A converted folder may lack these, and the decoder would then choose language, task and time stamps by itself.
        asked = self._model.generation_config
        asked.max_length = self._model.config.max_target_positions
        asked.is_multilingual = self._is_multilingual
        asked.lang_to_id = {f"<|{code}|>": vocabulary.get(f"<|{code}|>") for code in codes}
        asked.task_to_id = {"transcribe": vocabulary.get("<|transcribe|>")}
        asked.no_timestamps_token_id = vocabulary["<|notimestamps|>"]

    def transcribe(self, waveform: "np.ndarray", *, language: str, **_: object) -> tuple[list[Any], None]:
        """Recognise an utterance, [samples]; a segment for each window of it."""
        asked = {"language": language, "task": "transcribe"} if self._is_multilingual else {}
        segments = []
        for start in range(0, len(waveform), WINDOW_SAMPLES):
            window = waveform[start : start + WINDOW_SAMPLES]
            features = self._features(window, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
            ids = self._model.generate(features, num_beams=1, do_sample=False, **asked)[0]
            segments.append(SimpleNamespace(text=self._tokenizer.decode(ids, skip_special_tokens=True), words=None))
        return segments, None


def is_baseline(name: str) -> bool:
    """Tell whether the name of a model asks for one of these systems."""
    kind, colon, _ = name.partition(":")
    return name == POCKETSPHINX or (bool(colon) and kind in WEIGHTS)


def load_baseline(name: str, *, num_threads: int, has_words: bool = False) -> Baseline:
    """Load one of these systems for the CPU.

    Args:
        name: `faster-whisper:DIR` or `whisper:DIR`, with the folder of a Whisper model in the format of CTranslate2 or
            transformers, or `pocketsphinx`.
        num_threads: threads that faster-whisper may use, as many as the model beside it; torch has its own setting, and
            pocketsphinx uses one.
        has_words: whether word times and confidences are asked for.

    Raises:
        ConfigError: another name, no such folder, a folder without a model, or what it needs is not installed.
    """
    kind, _, path = name.partition(":")
    folder = Path(path)
    if not is_baseline(name) or not (kind == POCKETSPHINX or (folder / WEIGHTS[kind]).is_file()):
        raise ConfigError(
            f"{name}: no baseline. Write faster-whisper:DIR, with the folder that holds model.bin, config.json and "
            "tokenizer.json of a Whisper model in CTranslate2's format, whisper:DIR, with model.safetensors, "
            f"config.json and tokenizer.json as transformers has them, or {POCKETSPHINX}."
        )
    try:
        return Baseline(model=_load(kind, folder, num_threads), has_words=has_words, name=kind)
    except ImportError as error:
        raise ConfigError(f"{name}: {kind} is not installed ({error}). Run `pip install 'dgasr[baseline]'`.") from error
    except Exception as error:  # CTranslate2 and tokenizers raise RuntimeError, ValueError and bare Exception
        raise ConfigError(f"{name}: cannot be loaded ({error}). Give a folder that {kind} can read.") from error


def _load(kind: str, folder: Path, num_threads: int) -> Any:
    if kind == POCKETSPHINX:
        return PocketSphinx()
    if kind == "whisper":
        return TransformersWhisper(folder)
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=num_threads, local_files_only=True)


def evaluate_baseline(
    utterances: Sequence[Utterance],
    baseline: Baseline,
    *,
    normalizer: str,
    metric: str,
    language: str | None,
    on_utterance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score one of these systems on utterances.

    Args:
        utterances: what it is to recognise, one after the other.
        baseline: from `load_baseline`.
        normalizer: one of `normalise.Normalizer`.
        metric: `wer` or `cer`.
        language: code for every utterance, or `None` for the one in its manifest row.
        on_utterance: called when an utterance has been recognised; for progress.

    Returns:
        An evaluation whose `wall_s` runs from the first byte of audio to the last word, after one utterance of warm-up.

    Raises:
        ConfigError: a language that the model does not know; before any work.
    """
    codes = [language or base_language(utterance.language) for utterance in utterances]
    unknown = sorted(set(codes) - set(baseline.model.supported_languages))
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: no language of the baseline. Leave out its rows with --languages.")
    _recognise(baseline, utterances[0], codes[0])
    started = time.perf_counter()
    scored, timed = [], []
    for utterance, code in zip(utterances, codes, strict=True):
        begun = time.perf_counter()
        scored.append(_recognise(baseline, utterance, code))
        timed.append((scored[-1].audio_s, time.perf_counter() - begun))
        on_utterance()
    return Evaluation(
        utterances=tuple(scored),
        normalizer=normalizer,
        metric=metric,
        max_steps=0,
        path=baseline.name,
        wall_s=time.perf_counter() - started,
        timed=tuple(pair for pair in timed if pair[0]),
    )


def _recognise(baseline: Baseline, utterance: Utterance, language: str) -> ScoredUtterance:
    empty = ScoredUtterance(
        audio_filepath=utterance.audio_filepath,
        language=utterance.language,
        audio_s=0.0,
        reference=utterance.text,
        hypothesis="",
        reference_words=utterance.words,
        speaker=utterance.speaker,
        set_name=utterance.set_name,
    )
    try:
        waveform, failure = read_waveform(utterance, AudioConfig())
    except (RecordingError, OSError) as error:
        return replace(empty, failure=str(error))
    segments = _segments(baseline, waveform, language)
    words = [[_word(word, len(waveform)) for word in segment.words or ()] for segment in segments]
    return replace(
        empty,
        audio_s=seconds(len(waveform)),
        hypothesis=join_words(segment.text.strip() for segment in segments),
        hypothesis_words=tuple(word for part in words for word in part),
        segments=tuple(ScoredSegment(num_words=len(segment.text.split()), flags=()) for segment in segments),
        failure=failure,
    )


def _segments(baseline: Baseline, waveform: "np.ndarray", language: str) -> list[Any]:
    found, _ = baseline.model.transcribe(
        waveform,
        language=language,
        beam_size=1,
        temperature=0.0,  # one value: no second tries by sampling, so that the same audio gives the same text
        condition_on_previous_text=False,
        without_timestamps=True,
        word_timestamps=baseline.has_words,
        vad_filter=False,
    )
    # A generator: the work is done here. Asked for word times, faster-whisper looks once more at what follows the last
    # word, and invents text there (WER 50 % instead of 24 % on 40 clips); a clip of one window has one segment.
    is_one_segment = baseline.has_words and len(waveform) <= WINDOW_SAMPLES
    return list(islice(found, 1) if is_one_segment else found)


def _word(word: Any, limit: int) -> Word:
    """Turn a word with times in seconds into one with samples; `limit` is the end of the audio."""
    start, end = (min(num_samples(max(time_s, 0.0)), limit) for time_s in (word.start, word.end))
    return Word(
        word=word.word.strip(), start_sample=start, end_sample=max(start, end), confidence=float(word.probability)
    )
