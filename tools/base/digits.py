"""Spoken numbers for training: their words, how they sound in an accent, and windows of one voice that says digits.

In: takes of single digits (Free Spoken Digit Dataset), numbers read by `voices.py --numbers`. Out: a manifest of the
takes of all voices but those that are to be judged on, and windows like those of `speech.py`, some of which say a few
digits or many, close behind each other.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dgasr.training.augmentation import augment, change_speed
from tools.base.speech import AUGMENTATION, IGNORED, TOKEN_SAMPLES, Clip, PackedWindows, Speech, quiet
from tools.tiny.corpora import digits_manifest, speakers_in
from tools.tiny.voices import DIGITS

TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

ACCENTS = {
    "zˈɪɹO": ("zˈiɹO", "zˈɛɹO", "zˈɛɾɔ", "sˈɪɹO", "zˈɪɾO", "zˈiɾɔ"),
    "θɹˈi": ("tɹˈi", "sɹˈi", "fɹˈi", "tɾˈi", "sɾˈi", "dɹˈi"),
    "fˈɔɹ": ("fˈɔ", "fˈɔə", "fˈO", "fˈɔɾ"),
    "sˈɪks": ("sˈiks", "zˈɪks"),
    "sˈɛvən": ("sˈɛvɛn", "sˈɛfən", "zˈɛvən"),
    "ˈAt": ("ˈɛt", "ˈɛɪt", "hˈAt", "ˈAd"),
    "nˈIn": ("nˈɑɪn",),
    "wˈʌn": ("wˈɑn", "wˈɔn", "vˈʌn"),
    "tˈu": ("tˈʊ", "ʧˈu", "dˈu"),
    "fˈIv": ("fˈIf", "fˈɑɪf", "vˈIv"),
}
"""Digits as the synthesiser's dictionary writes them, and as somebody might say them whose first language is another:
of four of the five voices in the data set of digits it is. Ours, by ear for German, French, Spanish and Greek."""

ACCENTED = 0.5, 0.6
"""Share of numbers with an accent, and of their digits that it changes."""

DIGIT_AUGMENTATION = replace(AUGMENTATION, telephone_probability=0.4, colour_probability=0.3, noise_probability=0.4)
"""Digits are dictated into telephones more often than books are."""

REAL = 0.6
"""Share of the windows of digits that takes say."""

GAPS_S = ((0.02, 0.12), (0.05, 0.3), (0.2, 0.7))
"""Pauses between two takes, seconds; a window has one of these kinds."""


def draw_number(rng: random.Random) -> list[str]:
    """Draw the words of a number: digits one by one most often, else tens, hundreds or a year."""
    if rng.random() < 0.78:
        return rng.choices(DIGITS, k=rng.choice((1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 10)))
    words: list[str] = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        if kind < 0.3:
            words.append(rng.choice(TEENS))
        elif kind < 0.7:
            words += [rng.choice(TENS), rng.choice(DIGITS[1:])]
        elif kind < 0.85:
            words += [rng.choice(DIGITS[1:]), "hundred", rng.choice(TENS), rng.choice(DIGITS[1:])]
        else:
            words += ["nineteen", rng.choice(TENS), rng.choice(DIGITS[1:])]
    return words


def with_accent(phonemes: str, rng: random.Random) -> str:
    """Change how some digits are said, in half of the texts."""
    if rng.random() >= ACCENTED[0]:
        return phonemes
    for usual, others in ACCENTS.items():
        first, *rest = phonemes.split(usual)
        phonemes = first + "".join(
            (rng.choice(others) if rng.random() < ACCENTED[1] else usual) + part for part in rest
        )
    return phonemes


class DigitWindows(PackedWindows):
    """Windows of speech of which some say digits.

    Args:
        takes: single digits.
        numbers: whole numbers, of made voices.
        share: of the windows that say digits.
        others: what `PackedWindows` takes.
    """

    def __init__(self, *, takes: Speech, numbers: Speech, share: float, **others: Any) -> None:
        super().__init__(**others)
        self._takes, self._numbers, self._share = takes, numbers, share
        voices: dict[str, list[Clip]] = {}
        for clip in takes.clips:
            voices.setdefault(clip.speaker, []).append(clip)
        self._voices = list(voices.values())

    def _window(self, rng: np.random.Generator, strength: float) -> tuple[np.ndarray, list[int], np.ndarray]:
        if rng.random() >= self._share:
            return super()._window(rng, strength)
        is_real = rng.random() < REAL
        count = int(rng.integers(1, 4)) if rng.random() < 0.35 else int(rng.integers(4, 26))
        if is_real:
            source, clips = self._takes, self._voices[rng.integers(len(self._voices))]
        else:
            source, clips, count = self._numbers, self._numbers.clips, max(1, count // 4)
        limit, speed = self._features.window_samples, 1 + 0.15 * strength * rng.uniform(-1, 1)
        gap_s = GAPS_S[rng.integers(len(GAPS_S))]
        pieces, texts = [quiet(rng.uniform(0.0, 0.5), rng)], []
        for _ in range(count):
            clip = clips[rng.integers(len(clips))]
            waveform = change_speed(source.waveform(clip), speed * (1 + 0.03 * rng.uniform(-1, 1)))
            if sum(piece.size for piece in pieces) + waveform.size + 1600 > limit:
                break
            pieces += [(waveform * rng.uniform(0.7, 1.0)).astype(np.float32), quiet(rng.uniform(*gap_s), rng)]
            texts.append(clip.text)
        joined = np.concatenate([*pieces, quiet(rng.uniform(0.0, 0.5), rng)])[:limit]
        labels = np.full(-(-limit // TOKEN_SAMPLES), IGNORED, np.int64)
        return augment(joined, DIGIT_AUGMENTATION, strength, rng), self._tokenizer.encode(" ".join(texts)).ids, labels


def main() -> None:
    """Write the manifest from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--fsdd", type=Path, required=True, help="folder of the Free Spoken Digit Dataset")
    parser.add_argument("--unheard", nargs="*", default=(), help="voices to leave out")
    options = parser.parse_args()
    options.manifest.parent.mkdir(parents=True, exist_ok=True)
    speakers = [name for name in speakers_in(options.fsdd) if name not in options.unheard]
    print(f"{len(digits_manifest(options.fsdd, options.manifest, speakers))} takes of {', '.join(speakers)}")


if __name__ == "__main__":
    main()
