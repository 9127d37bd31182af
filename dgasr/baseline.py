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
from pathlib import Path

import numpy as np

from dgasr.audio import AudioConfig
from dgasr.errors import ConfigError, RecordingError
from dgasr.evaluation.normalise import base_language
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredSegment, ScoredUtterance
from dgasr.evaluator import EvaluationConfig, read_waveform
from dgasr.manifests import Utterance
from dgasr.records import SAMPLE_RATE_HZ, join_words, seconds

WEIGHTS = {"faster-whisper": "model.bin", "whisper": "model.safetensors"}
"""Systems that are named with a folder, `KIND:DIR`, and the file that no such folder lacks."""

POCKETSPHINX = "pocketsphinx"
"""The system that needs none."""

MULTILINGUAL_TOKENS = 51_865
"""Of Whisper's vocabulary for all languages; that of its English models is smaller."""

WINDOW_SAMPLES = 30 * SAMPLE_RATE_HZ
"""What Whisper recognises at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A loaded system: its name for people, the codes that it knows; waveform, [samples], and a code in, text out."""

    name: str
    languages: Sequence[str]
    recognise: Callable[[np.ndarray, str], str]


def load_baseline(name: str, num_threads: int) -> Baseline:
    """Load one of these systems for the CPU.

    `name` is `faster-whisper:DIR` or `whisper:DIR`, with the folder of a Whisper model in the format of CTranslate2 or
    transformers, or `pocketsphinx`. faster-whisper uses `num_threads`, as many as the model beside it; torch has its
    own setting, and pocketsphinx uses one.

    Raises:
        ConfigError: another name, no such folder, a folder without a model, or what it needs is not installed.
    """
    kind, _, path = name.partition(":")
    folder = Path(path)
    if name != POCKETSPHINX and not (kind in WEIGHTS and (folder / WEIGHTS[kind]).is_file()):
        raise ConfigError(
            f"{name}: no baseline. Write faster-whisper:DIR, with the folder that holds model.bin, config.json and "
            "tokenizer.json of a Whisper model in CTranslate2's format, whisper:DIR, with model.safetensors, "
            f"config.json and tokenizer.json as transformers has them, or {POCKETSPHINX}."
        )
    try:
        if name == POCKETSPHINX:
            return _pocketsphinx()
        return _transformers_whisper(folder) if kind == "whisper" else _faster_whisper(folder, num_threads)
    except ImportError as error:
        raise ConfigError(f"{name}: {kind} is not installed ({error}). Run `pip install 'dgasr[baseline]'`.") from error
    except Exception as error:  # CTranslate2 and tokenizers raise RuntimeError, ValueError and bare Exception
        raise ConfigError(f"{name}: cannot be loaded ({error}). Give a folder that {kind} can read.") from error


def _pocketsphinx() -> Baseline:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL")

    def recognise(waveform: np.ndarray, _: str) -> str:
        decoder.start_utt()
        decoder.process_raw((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return Baseline(name=POCKETSPHINX, languages=("en",), recognise=recognise)


def _faster_whisper(folder: Path, num_threads: int) -> Baseline:
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=num_threads, local_files_only=True)

    def recognise(waveform: np.ndarray, language: str) -> str:
        segments, _ = model.transcribe(
            waveform, language=language, beam_size=1, condition_on_previous_text=False, without_timestamps=True,
            vad_filter=False,
            temperature=0.0,  # one value: no second tries by sampling, so that the same audio gives the same text
        )  # fmt: skip
        return join_words(segment.text.strip() for segment in segments)

    return Baseline(name="faster-whisper", languages=model.supported_languages, recognise=recognise)


def _transformers_whisper(folder: Path) -> Baseline:
    """Load transformers' own Whisper, which recognises a window at a time."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True).float().eval()
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    tokenizer = WhisperTokenizer.from_pretrained(folder, local_files_only=True)
    vocabulary = tokenizer.get_vocab()
    is_multilingual = model.config.vocab_size >= MULTILINGUAL_TOKENS
    codes = [code for code in LANGUAGES if f"<|{code}|>" in vocabulary] if is_multilingual else ["en"]
    # A converted folder may lack these, and the decoder would then choose language, task and time stamps by itself.
    asked = model.generation_config
    asked.max_length = model.config.max_target_positions
    asked.is_multilingual = is_multilingual
    asked.lang_to_id = {f"<|{code}|>": vocabulary.get(f"<|{code}|>") for code in codes}
    asked.task_to_id = {"transcribe": vocabulary.get("<|transcribe|>")}
    asked.no_timestamps_token_id = vocabulary["<|notimestamps|>"]

    def recognise(waveform: np.ndarray, language: str) -> str:
        chosen = {"language": language, "task": "transcribe"} if is_multilingual else {}
        texts = []
        for start in range(0, len(waveform), WINDOW_SAMPLES):
            window = waveform[start : start + WINDOW_SAMPLES]
            features = extractor(window, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
            ids = model.generate(features, num_beams=1, do_sample=False, **chosen)[0]
            texts.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
        return join_words(texts)

    return Baseline(name="whisper", languages=codes, recognise=recognise)


def evaluate_baseline(
    utterances: Sequence[Utterance],
    baseline: Baseline,
    config: EvaluationConfig,
    on_utterance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score one of these systems on utterances, one after the other; timed after one that is not counted.

    `on_utterance` is called when one has been recognised.

    Raises:
        ConfigError: a language that the model does not know; before any work.
    """
    codes = [config.language or base_language(utterance.language) for utterance in utterances]
    unknown = sorted(set(codes) - set(baseline.languages))
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
        utterances=tuple(scored), normalizer=config.normalizer, metric=config.metric, max_steps=0, path=baseline.name,
        wall_s=time.perf_counter() - started, timed=tuple(pair for pair in timed if pair[0]),
    )  # fmt: skip


def _recognise(baseline: Baseline, utterance: Utterance, language: str) -> ScoredUtterance:
    empty = ScoredUtterance(
        audio_filepath=utterance.audio_filepath, language=utterance.language, audio_s=0.0, reference=utterance.text,
        hypothesis="", speaker=utterance.speaker, set_name=utterance.set_name,
    )  # fmt: skip
    try:
        waveform, failure = read_waveform(utterance, AudioConfig())
    except (RecordingError, OSError) as error:
        return replace(empty, failure=str(error))
    text = baseline.recognise(waveform, language)
    segment = ScoredSegment(num_words=len(text.split()))
    return replace(empty, audio_s=seconds(len(waveform)), hypothesis=text, segments=(segment,), failure=failure)
