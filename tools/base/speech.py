"""Training speech as packed windows: several clips behind each other, so that no step is spent on padding.

In: a manifest of short clips. Out: batches of whole encoder windows, log-mel features with their texts. Batch `step` is
a pure function of (seed, step), which makes a killed training go on exactly.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from dgasr.audio import AudioConfig, open_audio
from dgasr.features import FeatureConfig, log_mel
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.training.augmentation import AugmentationConfig, augment, change_speed, coloured_noise, non_speech
from tools.base.sizes import BLANK_ID
from tools.base.vocabulary import is_spoken_form, plain

SET_WEIGHTS = {
    "en_librispeech_devclean": 2.0, "en_librispeech": 2.0, "en_ljspeech": 2.0, "en_speechocean762": 0.6,
    "en_an4": 0.6, "en_asterisk": 0.7, "en_asp": 1.2, "en_queen": 1.0,
    "en_hibari": 0.6,
}  # fmt: skip
"""How much a second of each set counts when clips are drawn; read books are what the first figure is about."""

AUGMENTATION = AugmentationConfig(
    speed=0.0, gain_db=8.0, colour_probability=0.2, telephone_probability=0.08, reverb_probability=0.12,
    noise_probability=0.25, snr_db=(10.0, 40.0),
)  # fmt: skip
"""How hard audio becomes: less than half of what the first ear got, which six epochs of it left underfitted."""

IGNORED = -100
TOKEN_SAMPLES = 1280
"""Samples from one audio token to the next: four encoder frames, 80 ms."""

GAP_S = (0.1, 0.7)
"""Pause between packed clips, seconds."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip: where its samples lie, and what is said."""

    source: int
    start: int
    num_samples: int
    text: str
    speaker: str
    set_name: str
    words: tuple[tuple[int, int], ...] | None = None
    """Where each word is spoken, samples of the clip; from `align.py`."""


class Speech:
    """Clips of manifests, the samples of each manifest in one memory-mapped file.

    Args:
        manifests: JSONL with `audio_filepath`, `text`, `language`, `speaker`, and `set` if it has a weight.
        cache: folder for the decoded samples, made on first use, and for what `align.py` finds.
        languages: what is kept.
    """

    def __init__(self, manifests: Path | Sequence[Path], cache: Path, languages: tuple[str, ...]) -> None:
        self._samples: list[np.ndarray] = []
        self.clips: list[Clip] = []
        for manifest in [manifests] if isinstance(manifests, Path) else manifests:
            self._add(manifest, cache, languages)

    def _add(self, manifest: Path, cache: Path, languages: tuple[str, ...]) -> None:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        samples, lengths = cache / f"{manifest.stem}.int16", cache / f"{manifest.stem}_len.npy"
        if not lengths.is_file():
            _decode([manifest.parent / row["audio_filepath"] for row in rows], samples, lengths)
        counts = np.load(lengths)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        aligned = cache / f"{manifest.stem}_words.jsonl"
        places = {
            row["start"]: tuple(map(tuple, row["words"]))
            for row in map(json.loads, aligned.read_text().splitlines() if aligned.is_file() else ())
        }
        self.clips += [
            Clip(len(self._samples), int(start), int(count), plain(row["text"]), row["speaker"], row.get("set", ""),
                 places.get(int(start)))
            for row, start, count in zip(rows, starts, counts, strict=True)
            if row["language"] in languages and is_spoken_form(row["text"]) and plain(row["text"])
        ]  # fmt: skip
        self._samples.append(np.memmap(samples, dtype=np.int16, mode="r"))

    def waveform(self, clip: Clip) -> np.ndarray:
        """Return a clip's samples as float32 in [-1, 1]."""
        return self._samples[clip.source][clip.start : clip.start + clip.num_samples].astype(np.float32) / 32768.0


def _decode(paths: list[Path], samples: Path, lengths: Path) -> None:
    """Decode files into one; `lengths` is written last and says that it is whole."""
    samples.parent.mkdir(parents=True, exist_ok=True)
    counts = []
    with ProcessPoolExecutor() as pool, samples.open("wb") as file:
        for waveform in pool.map(_read, paths, chunksize=64):
            waveform.tofile(file)
            counts.append(waveform.size)
    np.save(lengths, np.array(counts))


def _read(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        waveform = np.concatenate(list(open_audio(file, str(path), AudioConfig()).blocks()))
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(np.int16)


class PackedWindows:
    """Makes batches of packed windows.

    Args:
        speech: where clips come from.
        window_s: length of a window.
        batch_windows: windows in a batch.
        augmentation: how hard audio may become.
        seed: of all choices.
        ramp_steps: steps over which the augmentation grows to its full strength.
        tokenizer: of the small vocabulary.
    """

    def __init__(
        self,
        speech: Speech,
        window_s: float,
        batch_windows: int,
        augmentation: AugmentationConfig,
        seed: int,
        ramp_steps: int,
        tokenizer: Tokenizer,
    ) -> None:
        self._tokenizer = tokenizer
        self._speech, self._batch, self._augmentation = speech, batch_windows, augmentation
        self._seed, self._ramp = seed, ramp_steps
        self._features = FeatureConfig(window_samples=round(window_s * SAMPLE_RATE_HZ))
        longest = self._features.window_samples * 0.97
        self._clips = [clip for clip in speech.clips if clip.num_samples <= longest]
        weights = np.array([clip.num_samples * SET_WEIGHTS.get(clip.set_name, 1.0) for clip in self._clips])
        self._shares = np.cumsum(weights / weights.sum())
        self._of_speaker: dict[tuple[str, str], list[int]] = {}
        for index, clip in enumerate(self._clips):
            self._of_speaker.setdefault((clip.set_name, clip.speaker), []).append(index)

    def batch(self, step: int) -> tuple[np.ndarray, list[list[int]], np.ndarray]:
        """Make the batch of a step.

        Returns:
            Features [windows, mels, frames] float32, the token ids of each window, and labels of the audio tokens whose
            piece or pause is known from word times, else IGNORED [windows, audio tokens].
        """
        rng = np.random.default_rng([self._seed, step])
        strength = min(1.0, (step + 1) / self._ramp)
        features, ids, labels = [], [], []
        for _ in range(self._batch):
            waveform, own_ids, own_labels = self._window(rng, strength)
            audio, pad_value = log_mel(waveform, self._features)
            window = np.full((self._features.num_mel_bins, self._features.window_frames), pad_value, np.float32)
            window[:, : audio.shape[1]] = audio
            _mask(window, audio.shape[1], strength, rng)
            features.append(window)
            ids.append(own_ids)
            labels.append(own_labels)
        return np.stack(features), ids, np.stack(labels)

    def _window(self, rng: np.random.Generator, strength: float) -> tuple[np.ndarray, list[int], np.ndarray]:
        labels = np.full(-(-self._features.window_samples // TOKEN_SAMPLES), IGNORED, np.int64)
        if rng.random() < 0.02:
            labels[:] = BLANK_ID
            return non_speech(int(rng.integers(SAMPLE_RATE_HZ, self._features.window_samples)), rng), [], labels
        limit = self._features.window_samples
        if rng.random() < 0.3:  # half-filled windows must be known too
            limit = round(limit * rng.uniform(0.15, 1.0))
        clip = self._clips[int(np.searchsorted(self._shares, rng.random()))]
        own = self._of_speaker[clip.set_name, clip.speaker]
        keeps_speaker = rng.random() < 0.7
        pieces, texts, size = [quiet(rng.uniform(0, 0.3), rng)], [], 0
        size = pieces[0].size
        while True:
            waveform = change_speed(self._speech.waveform(clip), 1 + 0.12 * strength * rng.uniform(-1, 1))
            if size + waveform.size > limit and (texts or size + waveform.size > self._features.window_samples):
                break
            self._label(labels, clip, size, waveform.size)
            pieces += [waveform, quiet(rng.uniform(*GAP_S), rng)]
            size += waveform.size + pieces[-1].size
            texts.append(clip.text)
            if size > limit:
                break
            clip = self._clips[
                own[rng.integers(len(own))] if keeps_speaker else int(np.searchsorted(self._shares, rng.random()))
            ]
        if not texts:  # speed made a clip that fills the window longer than it
            return self._window(rng, strength)
        joined = np.concatenate(pieces)[: self._features.window_samples]
        ids = self._tokenizer.encode(" ".join(texts)).ids
        return augment(joined, self._augmentation, strength, rng), ids, labels

    def _label(self, labels: np.ndarray, clip: Clip, position: int, num_samples: int) -> None:
        """Label the audio token at the middle of each piece, in place."""
        scale = num_samples / clip.num_samples
        for word, (start, end) in zip(clip.text.split(), clip.words or (), strict=False):
            own = self._tokenizer.encode(word)
            widths = np.array([max(1, len(token)) for token in own.tokens], float)
            middles = (np.cumsum(widths) - widths / 2) / widths.sum()
            # Whisper's attention moves on when a word is over: a pause before a word is part of what it gives the word.
            length = min(end - start, round(SAMPLE_RATE_HZ * (0.15 + 0.085 * len(word))))
            for token, middle in zip(own.ids, middles, strict=True):
                frame = int((position + (end - length + middle * length) * scale) // TOKEN_SAMPLES)
                frame += frame < len(labels) and labels[frame] >= 0  # two pieces in one token's time: the next one
                if frame < len(labels) and labels[frame] < 0:
                    labels[frame] = token


def quiet(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Make a pause: digital silence, or a room's noise.  [samples]"""
    num_samples = round(duration_s * SAMPLE_RATE_HZ)
    if rng.random() < 0.3 or num_samples < 400:
        return np.zeros(num_samples, np.float32)
    return (coloured_noise(num_samples, 1.0, rng) * 10 ** rng.uniform(-4.5, -2.8)).astype(np.float32)


def _mask(window: np.ndarray, num_frames: int, strength: float, rng: np.random.Generator) -> None:
    """Blank bands and stretches of time as SpecAugment (Park et al. 2019) does, in place."""
    fill = float(window[:, :num_frames].mean())
    for _ in range(2):
        width = int(rng.integers(0, max(1, round(18 * strength)) + 1))
        start = int(rng.integers(0, window.shape[0] - width))
        window[start : start + width] = fill
    for _ in range(round(num_frames / 150 * strength * rng.uniform(0.3, 1.5))):
        width = int(rng.integers(1, 31))
        start = int(rng.integers(0, max(1, num_frames - width)))
        window[:, start : start + width] = fill
