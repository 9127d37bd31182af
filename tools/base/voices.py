"""Have sentences of books read by a synthetic voice: more words in more orders than 11 h of people say.

In: sentences, one a line, and Hibari, a synthesiser that says what it does as a spectrum and a pitch; both are bent for
each sentence, so that every one is read by somebody else; or numbers, half of them with an accent. Out: clips as FLAC
with a manifest (`NAME.jsonl`) that the other stages read like any corpus. A killed run goes on with the next clip.
"""

import argparse
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from dgasr.records import SAMPLE_RATE_HZ
from tools.base.digits import draw_number, with_accent
from tools.base.vocabulary import is_spoken_form, plain, read_lines

WORDS = (4, 28)
"""Length of the sentences that are read."""

PACE = (0.8, 1.25)
"""How slowly the voice reads, in its own lengths of a sound; drawn for each sentence."""


VOICED_HZ = 40.0
"""Pitch below which Hibari means that no voice sounds."""


def sentences(path: Path, seed: int) -> Iterator[str]:
    """Yield sentences that can be read aloud in one way, in a random order that the seed fixes."""
    lines = [line.strip() for line in read_lines([path])]
    random.Random(seed).shuffle(lines)
    for line in lines:
        if line.isascii() and is_spoken_form(line) and WORDS[0] <= len(plain(line).split()) <= WORDS[1]:
            yield line


def numbers(seed: int) -> Iterator[str]:
    """Yield numbers as they are dictated, without end."""
    rng = random.Random(seed)
    while True:
        yield rng.choice((" ", ", ")).join(draw_number(rng))


Reader = Callable[[str, random.Random], tuple[np.ndarray, int]]
"""Reads a text: samples and their rate, Hz."""


def load_reader(accented: bool) -> Reader:
    """Load the synthesiser; `accented` says whether it reads numbers, and some of them as foreigners do."""
    from hibari import Hibari, dsp

    voice = Hibari()

    def read(text: str, rng: random.Random) -> tuple[np.ndarray, int]:
        speaker, parts = draw_speaker(rng), []
        noise = np.random.default_rng(rng.randrange(1 << 30))
        for phonemes in voice.phonemize(text):
            phonemes = with_accent(phonemes, rng) if accented else phonemes
            ids = np.asarray([voice.ids(phonemes)], np.int64)
            pace = np.asarray([1 / rng.uniform(*PACE)], np.float32)
            outputs = (output[0] for output in voice.sess.run(None, {"ids": ids, "speed": pace}))
            harmonic, phase, breath, free, free_phase, pitch = outputs
            harmonic, phase, breath, free, free_phase = (
                warp(part, speaker.formants) for part in (harmonic, phase, breath, free, free_phase)
            )
            octaves = np.log2(np.linspace(0.05, 1.0, len(harmonic)))[:, None] + 2.0
            tilt = (speaker.tilt * octaves).astype(np.float32)
            pitch = bend(pitch, speaker)
            parts.append(
                dsp.synth(harmonic + tilt, phase, breath + tilt + speaker.breath, free + tilt, free_phase, pitch, noise)
            )
        return np.concatenate(parts), dsp.SR

    return read


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """How somebody differs from the voice that a synthesiser was trained on.

    pitch: factor of the pitch; 0.55 makes a man of a woman.
    intonation: factor of the pitch's excursions, on a logarithmic scale.
    formants: factor of the frequencies of the spectrum's envelope: a longer vocal tract has a lower one.
    tilt: nepers an octave, around a quarter of the highest frequency.
    breath: nepers that noise is louder by.
    """

    pitch: float
    intonation: float
    formants: float
    tilt: float
    breath: float


def draw_speaker(rng: random.Random) -> Speaker:
    """Draw somebody: half of them men, whose pitch and formants are lower together."""
    if rng.random() < 0.5:
        pitch, formants = rng.uniform(0.42, 0.72), rng.uniform(0.80, 0.95)
    else:
        pitch, formants = rng.uniform(0.8, 1.35), rng.uniform(0.9, 1.12)
    return Speaker(
        pitch=pitch, intonation=rng.uniform(0.6, 1.5), formants=formants, tilt=rng.uniform(-0.2, 0.15),
        breath=rng.uniform(-0.6, 0.6),
    )  # fmt: skip


def warp(envelope: np.ndarray, factor: float) -> np.ndarray:
    """Stretch frames' spectra along frequency; [bins, frames] → [bins, frames]"""
    places = np.minimum(np.arange(len(envelope)) / factor, len(envelope) - 1.0)
    below = places.astype(int)
    above = np.minimum(below + 1, len(envelope) - 1)
    share = (places - below).astype(np.float32)[:, None]
    return envelope[below] * (1 - share) + envelope[above] * share


def bend(pitch: np.ndarray, speaker: Speaker) -> np.ndarray:
    """Give a curve of pitch, Hz, to another speaker; what is unvoiced stays so."""
    voiced = pitch > VOICED_HZ
    if not voiced.any():
        return pitch
    middle = np.log(np.median(pitch[voiced]))
    bent = np.exp(middle + speaker.intonation * (np.log(np.maximum(pitch, VOICED_HZ)) - middle)) * speaker.pitch
    return np.where(voiced, np.clip(bent, VOICED_HZ + 10.0, 500.0), 0.0).astype(np.float32)


def _start(accented: bool) -> None:
    global _reader
    os.nice(10)
    _reader = load_reader(accented)


def _read(task: tuple[Path, str, int]) -> float:
    """Read one sentence into a file; → its length, s"""
    path, text, seed = task
    if path.is_file():
        return soundfile.info(path).duration
    spoken, rate = _reader(text, random.Random(seed))
    waveform = soxr.resample(spoken.astype(np.float32), rate, SAMPLE_RATE_HZ)
    waveform *= min(1.0, 0.9 / max(1e-6, float(np.abs(waveform).max())))
    soundfile.write(path.with_suffix(".partial"), waveform, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    path.with_suffix(".partial").replace(path)
    return waveform.size / SAMPLE_RATE_HZ


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("manifest", type=Path, help="written here; the clips go into a folder of its name beside it")
    said = parser.add_mutually_exclusive_group(required=True)
    said.add_argument("--text", type=Path, help="sentences, one a line, `.xz`")
    said.add_argument("--numbers", action="store_true", help="numbers in place of sentences")
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.manifest.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    texts = numbers(options.seed) if options.numbers else sentences(options.text, options.seed)
    tasks = ((folder / f"{n:05d}.flac", text, options.seed * 1_000_003 + n) for n, text in enumerate(texts))
    rows, total_s, set_name = [], 0.0, "en_hibari_numbers" if options.numbers else "en_hibari"
    with ProcessPoolExecutor(options.processes, initializer=_start, initargs=(options.numbers,)) as pool:
        while total_s < options.hours * 3600 and (part := list(itertools.islice(tasks, 64))):
            for (path, text, _), duration_s in zip(part, pool.map(_read, part), strict=True):
                rows.append(
                    {"audio_filepath": f"{folder.name}/{path.name}", "duration": round(duration_s, 3), "text": text,
                     "language": "en", "speaker": "hibari", "set": set_name}
                )  # fmt: skip
                total_s += duration_s
            print(f"{len(rows)} clips, {total_s / 3600:.2f} h", flush=True)
    options.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
