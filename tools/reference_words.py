"""Give the rows of a manifest reference word times: their text aligned with their audio by Whisper's cross-attention.

    python tools/reference_words.py MANIFEST OUT --whisper DIR [--sets a,b] [--languages en] [--limit N]

`DIR` is a Whisper model as transformers loads it. Each text goes through the decoder with the audio (teacher forcing);
the cross-attention of the heads that follow the audio says which frame each token is about, and dynamic time warping
makes a monotonic path of it. Attention knows where a word begins, not where it ends: pauses are taken off the edges by
loudness. Rows whose text is not what is said (its mean log-probability is low), or whose audio is longer than Whisper's
window, are written without `words`. `dgasr evaluate OUT` then measures word times.

Source: Radford et al. 2022 and openai/whisper, timing.py; the pauses are ours.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from dgasr.audio import AudioConfig
from dgasr.errors import ConfigError, RecordingError
from dgasr.evaluation.normalise import base_language, basic, has_no_spaces
from dgasr.evaluator import read_waveform
from dgasr.manifests import Selection, Utterance, read_manifest, select_utterances, write_manifest
from dgasr.records import SAMPLE_RATE_HZ, Word

ALIGNMENT_HEADS = ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6))
"""(layer, head) of Whisper base whose attention follows the audio. Source: openai/whisper, _ALIGNMENT_HEADS."""

FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
"""Samples of one frame of the encoder's output."""

WINDOW_SAMPLES = 30 * SAMPLE_RATE_HZ

MEDIAN_FRAMES = 7
"""Width of the filter over time that takes single frames out of the attention, as in openai/whisper."""

ONSET_DELAY_FRAMES = 2
"""Attention moves on before a word is heard: over the five sentences of shared/data/speech its onsets lie 40 ms before
pocketsphinx's in the median (30 to 70 ms a sentence), so they are put back by two frames."""

MIN_LOG_PROBABILITY = -2.5
"""Mean log-probability of a text's tokens below which it is taken not to be what is said. Read sentences in lower case,
which Whisper would write otherwise, reach -2.2."""

PAUSE_FRAMES = 5
"""Quiet frames (100 ms) that make a pause; shorter gaps are the closures of plosives, inside words."""

QUIET_DB = 35.0
"""How far below the loud frames (95th percentile) of its clip a frame counts as quiet."""

FLOOR_DB = 8.0
"""How far above the quietest frames (5th percentile), the room's noise, a frame may lie and still count as quiet; of 0,
5 and 8 dB the last came nearest to pocketsphinx's edges."""

LEAST_QUIET_DB = 18.0
"""What is nearer to the loud frames than this is never quiet, however noisy the room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligner:
    """Whisper with what it needs around it."""

    model: Any
    tokenizer: Any
    features: Any

    @classmethod
    def load(cls, folder: Path) -> "Aligner":
        """Read a folder with config.json, model.safetensors and tokenizer.json."""
        # Only the plain implementation of attention gives its weights out.
        model = WhisperForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
        return cls(
            model=model,
            tokenizer=PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
            features=WhisperFeatureExtractor(feature_size=model.config.num_mel_bins),
        )

    def align(self, waveform: np.ndarray, text: str, language: str) -> tuple[tuple[Word, ...], float]:
        """Place the words of a text in its audio.

        Args:
            waveform: mono at `SAMPLE_RATE_HZ`, at most a window long.  [samples]
            text: what is said.
            language: code that Whisper knows.

        Returns:
            The words in order, with Whisper's probability (geometric mean over a word's tokens) as confidence; and the
            mean log-probability of all tokens.
        """
        words = text_words(text, language)
        pieces = [self.tokenizer.encode(piece, add_special_tokens=False) for piece in _spaced(words, text, language)]
        tokens = [token for piece in pieces for token in piece]
        attention, log_probabilities = self._read(waveform, tokens, language)
        edges = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])  # [words + 1], in tokens
        onsets = token_onsets(attention)  # [tokens + 1]: the last is the end of the text
        loud = loud_frames(waveform)
        placed = []
        for word, first, last in zip(words, edges[:-1], edges[1:], strict=True):
            if not basic(word):
                continue  # punctuation between spaces takes part in the alignment, and is no word
            start, end = without_pauses(int(onsets[first]), int(onsets[last]), loud)
            placed.append(
                Word(
                    word=word,
                    start_sample=min(start * FRAME_SAMPLES, len(waveform)),
                    end_sample=min(end * FRAME_SAMPLES, len(waveform)),
                    confidence=float(np.exp(log_probabilities[first:last].mean())),
                )
            )
        return tuple(placed), float(log_probabilities.mean())

    @torch.inference_mode()
    def _read(self, waveform: np.ndarray, tokens: list[int], language: str) -> tuple[np.ndarray, np.ndarray]:
        """Decode a text with its audio: attention [heads, tokens + 1, frames] and log-probabilities [tokens]."""
        special = ("<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>")
        prompt = self.tokenizer.convert_tokens_to_ids(list(special))
        if None in prompt:
            raise ConfigError(f"{language}: no language of this Whisper. Leave its rows out with --languages.")
        features = self.features(waveform, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
        output = self.model(features, decoder_input_ids=torch.tensor([[*prompt, *tokens]]), output_attentions=True)
        num_frames = max(len(waveform) // FRAME_SAMPLES, 1)
        # The row that predicts a token tells where that token is; the last row predicts the end of the text.
        rows = slice(len(prompt) - 1, None)
        heads = [output.cross_attentions[layer][0, head, rows, :num_frames] for layer, head in ALIGNMENT_HEADS]
        scores = output.logits[0, len(prompt) - 1 : -1].log_softmax(-1)  # [tokens, vocabulary]
        chosen = scores[torch.arange(len(tokens)), torch.tensor(tokens)]
        return torch.stack(heads).numpy(), chosen.numpy()


def token_onsets(attention: np.ndarray) -> np.ndarray:
    """Find the frame at which each token begins.

    Args:
        attention: weights of some heads, a row for each token and one for the end.  [heads, tokens + 1, frames]

    Returns:
        First frame of each row on the best monotonic path.  [tokens + 1]

    Source:
        openai/whisper, `find_alignment`: weights renormalised over the audio's frames, standardised over tokens, median
        filtered over time, averaged over heads.
    """
    weights = attention / attention.sum(axis=-1, keepdims=True)
    mean, deviation = weights.mean(axis=-2, keepdims=True), weights.std(axis=-2, keepdims=True)
    standardised = torch.from_numpy((weights - mean) / (deviation + 1e-9))
    filtered = _median_filter(standardised, MEDIAN_FRAMES).mean(dim=0)  # [tokens + 1, frames]
    rows, frames = _dynamic_time_warping(-filtered.double().numpy())
    onsets = frames[np.flatnonzero(np.diff(rows, prepend=-1))]
    # The first onset is 0 by construction; loudness finds it. None is put behind the end.
    return np.where(onsets > 0, np.minimum(onsets + ONSET_DELAY_FRAMES, attention.shape[-1]), 0)


def loud_frames(waveform: np.ndarray) -> np.ndarray:
    """Tell in which frames somebody speaks, by loudness; pauses too short to stand between words count as loud.

    Args:
        waveform: at `SAMPLE_RATE_HZ`.  [samples]

    Returns:
        Booleans.  [frames]
    """
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    level_db = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-12)
    if not len(level_db):
        return np.zeros(0, dtype=bool)
    floor_db, peak_db = np.percentile(level_db, [5, 95])
    loud = level_db > min(max(peak_db - QUIET_DB, floor_db + FLOOR_DB), peak_db - LEAST_QUIET_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[1], loud, [1]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < PAUSE_FRAMES and start > 0 and end < len(loud):
            loud[start:end] = True
    return loud


def without_pauses(start: int, end: int, loud: np.ndarray) -> tuple[int, int]:
    """Take quiet frames off both ends of a word, and what lies beyond a pause; one that is quiet throughout stays.

    Attention often passes on to the next word in the middle of a pause: the shorter sound then is its neighbour's.

    Args:
        start: first frame of a word.
        end: frame after its last one.
        loud: which frames of the clip are loud.  [frames]
    """
    inside = start + np.flatnonzero(loud[start:end])
    if not len(inside):
        return start, max(start, end)
    sounds = np.split(inside, np.flatnonzero(np.diff(inside) > PAUSE_FRAMES) + 1)
    longest = max(sounds, key=lambda sound: sound[-1] - sound[0])
    return int(longest[0]), int(longest[-1]) + 1


def text_words(text: str, language: str) -> list[str]:
    """Split a text at spaces, or into characters where its language has none."""
    return [c for c in text if not c.isspace()] if has_no_spaces(language) else text.split()


def _spaced(words: Sequence[str], text: str, language: str) -> list[str]:
    """Put before each word the space that Whisper's tokens begin with."""
    return list(words) if has_no_spaces(language) else [f" {word}" for word in words]


def align_utterance(aligner: Aligner, utterance: Utterance) -> Utterance:
    """Give an utterance its words, or none where they cannot be placed."""
    try:
        waveform, _ = read_waveform(utterance, AudioConfig())
    except (RecordingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return replace(utterance, words=None)
    if not utterance.text.split() or not FRAME_SAMPLES <= len(waveform) <= WINDOW_SAMPLES:
        return replace(utterance, words=None)
    words, log_probability = aligner.align(waveform, utterance.text, base_language(utterance.language))
    return replace(utterance, words=words if log_probability >= MIN_LOG_PROBABILITY else None)


def main() -> None:
    """Read the arguments and write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, help="manifest to write, with audio paths that hold from there")
    parser.add_argument("--whisper", type=Path, required=True, metavar="DIR", help="Whisper base for transformers")
    parser.add_argument("--sets", default="", metavar="NAME,…")
    parser.add_argument("--languages", default="", metavar="CODE,…")
    parser.add_argument("--limit", type=int, default=0, metavar="N")
    options = parser.parse_args()
    selection = Selection(
        languages=tuple(filter(None, options.languages.split(","))),
        sets=tuple(filter(None, options.sets.split(","))),
        limit=options.limit,
    )
    chosen = select_utterances(read_manifest(options.manifest), selection)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    aligner = Aligner.load(options.whisper)
    aligned = [align_utterance(aligner, utterance) for utterance in chosen]
    write_manifest(options.out, aligned)
    num_words = sum(len(utterance.words or ()) for utterance in aligned)
    without = sum(utterance.words is None for utterance in aligned)
    sys.stdout.write(f"{len(aligned)} utterances, {num_words} words placed; {without} utterances without words\n")


if __name__ == "__main__":
    main()
