"""Make a set of audio in which nobody speaks the model's language: silence, noise, hum, music, other languages.

    python tools/make_nonspeech.py OUT [--speech16 DIR] [--clips N] [--clip-s S] [--language CODE]

Writes WAV files and OUT/manifest.jsonl, with an empty text in every row; `dgasr evaluate OUT/manifest.jsonl` then says
how many segments get words and how many of these are flagged. Equal arguments write equal files. With `--speech16` the
set also has speech of the shared data's validation set in all languages but CODE, played to a model that is told CODE.
"""

import argparse
import json
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

SAMPLE_RATE_HZ = 16_000

PEAKS = (0.5, 0.1, 0.02)
"""Largest absolute sample of successive clips: what is loud, as in a normal recording, and nearly inaudible."""

PENTATONIC = (0, 2, 4, 7, 9, 12, 14, 16)
"""Semitones above the lowest note; any order of them sounds like a tune."""


def silence(generator: np.random.Generator, num_samples: int) -> np.ndarray:
    """Zeros with the rounding noise of a 16-bit recorder that nobody speaks into.  [samples]"""
    return generator.integers(-1, 2, num_samples) / 32_768


def white_noise(generator: np.random.Generator, num_samples: int) -> np.ndarray:
    """Equal power at every frequency.  [samples]"""
    return generator.standard_normal(num_samples)


def pink_noise(generator: np.random.Generator, num_samples: int) -> np.ndarray:
    """Power that falls by 3 dB an octave from 20 Hz, like wind, traffic and ventilation.  [samples]"""
    spectrum = np.fft.rfft(generator.standard_normal(num_samples))
    frequencies_hz = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE_HZ)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies_hz, 20)), num_samples)


def hum(generator: np.random.Generator, num_samples: int) -> np.ndarray:
    """Mains hum: 50 or 60 Hz with falling overtones, slowly swelling, over faint noise.  [samples]"""
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    base_hz = generator.choice([50, 60]) * (1 + 0.001 * np.sin(2 * np.pi * 0.1 * time_s))
    phase = 2 * np.pi * np.cumsum(base_hz) / SAMPLE_RATE_HZ
    overtones = sum(generator.uniform(0.3, 1) / n * np.sin(n * phase + generator.uniform(0, 6)) for n in range(1, 12))
    swell = 1 + 0.3 * np.sin(2 * np.pi * generator.uniform(0.1, 0.5) * time_s)
    return overtones * swell + 0.01 * generator.standard_normal(num_samples)


def music(generator: np.random.Generator, num_samples: int) -> np.ndarray:
    """A plucked tune over chords and a drum, as a synthesiser plays it.  [samples]"""
    sound = np.zeros(num_samples)
    beat = int(SAMPLE_RATE_HZ * 60 / generator.uniform(80, 140))
    root_hz = 110 * 2 ** (generator.integers(12) / 12)
    for start in range(0, num_samples, beat // 2):
        note_hz = 2 * root_hz * 2 ** (generator.choice(PENTATONIC) / 12)
        _add(sound, start, _tone(note_hz, beat, decay_s=0.25, overtones=6), 0.5)
    for start in range(0, num_samples, 4 * beat):
        chord = generator.choice([(0, 4, 7), (5, 9, 12), (7, 11, 14), (-3, 0, 4)])
        for semitone in chord:
            _add(sound, start, _tone(root_hz * 2 ** (semitone / 12), 4 * beat, decay_s=2.0, overtones=4), 0.3)
    for start in range(0, num_samples, beat):
        hit = generator.standard_normal(beat // 4) * np.exp(-np.arange(beat // 4) / (0.02 * SAMPLE_RATE_HZ))
        _add(sound, start, hit, 0.2)
    return sound


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "silence": silence,
    "white_noise": white_noise,
    "pink_noise": pink_noise,
    "hum": hum,
    "music": music,
}
"""Set name → what makes it."""


def main() -> None:
    """Read the arguments and write the set."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--speech16", type=Path, help="folder of the shared speech, for other languages")
    parser.add_argument("--clips", type=int, default=12, help="clips of each kind (default: %(default)s)")
    parser.add_argument("--clip-s", type=float, default=10.0, help="length of a made clip, s (default: %(default)s)")
    parser.add_argument("--language", default="en", help="what the model is told (default: %(default)s)")
    options = parser.parse_args()
    rows = make_clips(options.out, options.clips, round(options.clip_s * SAMPLE_RATE_HZ), options.language)
    if options.speech16:
        rows += other_languages(options.speech16, options.clips, options.language)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (options.out / "manifest.jsonl").write_text(text, encoding="utf-8")


def make_clips(out: Path, num_clips: int, num_samples: int, language: str) -> list[dict[str, object]]:
    """Write clips of every kind as 16-bit WAV, and give their rows of the manifest."""
    rows: list[dict[str, object]] = []
    for kind, make in KINDS.items():
        (out / kind).mkdir(parents=True, exist_ok=True)
        for n in range(num_clips):
            # A seed of its own for each clip: more clips or another kind leave the others as they were.
            waveform = make(np.random.default_rng([zlib.crc32(kind.encode()), n]), num_samples)
            if kind != "silence":
                waveform = waveform / np.abs(waveform).max() * PEAKS[n % len(PEAKS)]
            _write_wav(out / kind / f"{n:03}.wav", waveform)
            rows.append(_row(f"{kind}/{n:03}.wav", num_samples / SAMPLE_RATE_HZ, language, kind))
    return rows


def other_languages(speech16: Path, num_clips: int, language: str) -> list[dict[str, object]]:
    """Give rows for speech in other languages, evenly spaced over the validation set, `num_clips` of each language."""
    lines = (speech16 / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    spoken: dict[str, list[dict[str, object]]] = {}
    for row in map(json.loads, lines):
        if row["language"] != language:
            spoken.setdefault(row["language"], []).append(row)
    rows = []
    for code, clips in sorted(spoken.items()):
        share = min(num_clips, len(clips))
        for clip in (clips[n * len(clips) // share] for n in range(share)):
            path = str((speech16 / str(clip["audio_filepath"])).resolve())
            rows.append(_row(path, float(str(clip["duration"])), language, f"speech_{code}"))
    return rows


def _row(path: str, duration_s: float, language: str, kind: str) -> dict[str, object]:
    return {"audio_filepath": path, "duration": duration_s, "text": "", "language": language, "set": kind}


def _tone(frequency_hz: float, num_samples: int, *, decay_s: float, overtones: int) -> np.ndarray:
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    waves = sum(np.sin(2 * np.pi * n * frequency_hz * time_s) / n for n in range(1, overtones + 1))
    return waves * np.exp(-time_s / decay_s) * np.minimum(time_s / 0.005, 1)  # 5 ms of attack: no click


def _add(sound: np.ndarray, start: int, part: np.ndarray, gain: float) -> None:
    end = min(start + len(part), len(sound))
    sound[start:end] += gain * part[: end - start]


def _write_wav(path: Path, waveform: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, len(waveform), "NONE", "not compressed"))
        file.writeframes(np.round(waveform * 32_767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
