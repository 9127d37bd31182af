"""Where speech between digital silence is said to begin and to end, held against where it does.

Each utterance is cut to its first and last word and put between half seconds of zeros: recordings are edited that way,
and there is no room noise that a model could have learned to expect. Knows nothing of words in between.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import print_table
from dgasr.audio import AudioConfig
from dgasr.commands.arguments import positive_int
from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import basic
from dgasr.evaluation.scores import drawn_units, statistics_intervals
from dgasr.evaluator import read_waveform
from dgasr.manifests import Selection, Utterance, read_manifest, select_utterances
from dgasr.model.asr import AsrModel
from dgasr.records import SAMPLE_RATE_HZ, Word, seconds
from dgasr.transcriber import load, transcribe

SILENCE_SAMPLES = SAMPLE_RATE_HZ // 2
"""Zeros before and behind."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is heard, and by which model."""
    add = parser.add_argument
    add("--words", type=Path, required=True, metavar="MANIFEST", help="of tools/reference_words.py")
    add("--model", metavar="NAME|DIR", help="as `dgasr transcribe` takes it (default: base)")
    add("--limit", type=positive_int, default=0, metavar="N", help="utterances (default: all)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for."""
    utterances = select_utterances(read_manifest(options.words), Selection(limit=options.limit))
    placed = [utterance for utterance in utterances if utterance.words]
    if not placed:
        raise ConfigError(f"{options.words}: no utterance has `words`. tools/reference_words.py places them.")
    figures = measure(load(options.model), placed)
    rows = [[name, *own.values()] for name, own in figures.items()]
    print_table(["", *next(iter(figures.values()))], rows)
    return {"words": str(options.words), **figures}


def measure(model: AsrModel, utterances: Sequence[Utterance]) -> dict[str, dict[str, object]]:
    """Transcribe utterances between zeros.

    Args:
        model: in evaluation mode.
        utterances: with words.

    Returns:
        For `begin` and `end`: medians of the signed and of the absolute error (ms), the latter with its 95 % interval,
        and how many utterances have the right word there; the others have no error.
    """
    errors = [edge_errors(model, utterance) for utterance in utterances]
    units = drawn_units([utterance.speaker for utterance in utterances])
    figures: dict[str, dict[str, object]] = {}
    for index, name in enumerate(("begin", "end")):
        parts = [np.array([[own[index]]] if own[index] is not None else np.empty((0, 1)), float) for own in errors]
        values = np.concatenate(parts)
        (interval,) = statistics_intervals(parts, _median_of_absolute, units) if len(values) else (None,)
        figures[name] = {
            "median_ms": _median_of_absolute(values)[0] if len(values) else None, "median_95_ms": interval,
            "bias_ms": float(np.median(values)) if len(values) else None, "matched": len(values),
            "utterances": len(utterances),
        }  # fmt: skip
    return figures


def edge_errors(model: AsrModel, utterance: Utterance) -> tuple[float | None, float | None]:
    """Give how late the first word is said to begin and the last one to end, ms; `None` where another word is heard."""
    assert utterance.words
    waveform, _ = read_waveform(utterance, AudioConfig())
    first, last = utterance.words[0], utterance.words[-1]
    spoken = waveform[first.start_sample : last.end_sample]
    zeros = np.zeros(SILENCE_SAMPLES, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        soundfile.write(path, np.concatenate([zeros, spoken, zeros]), SAMPLE_RATE_HZ)
        found = transcribe(path, model).words
    if not found:
        return None, None
    begin = _ms(found[0].start_sample - SILENCE_SAMPLES) if _is_same(first, found[0]) else None
    end = _ms(found[-1].end_sample - SILENCE_SAMPLES - len(spoken)) if _is_same(last, found[-1]) else None
    return begin, end


def _median_of_absolute(values: np.ndarray) -> list[float]:
    return [float(np.median(np.abs(values)))] if len(values) else [np.nan]


def _is_same(reference: Word, found: Word) -> bool:
    return basic(reference.word) == basic(found.word)


def _ms(num_samples: int) -> float:
    return 1000 * seconds(num_samples)
