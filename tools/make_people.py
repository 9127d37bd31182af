"""Make the demo's recordings of people: clips of shared speech in, files in several formats and their manifest out.

Run as `python -m tools.make_people SPEECH16 [FOLDER]`. Only clips are taken that anybody may pass on (Common Voice,
CC0; LJSpeech, public domain) and that no training has read; of each set the first ones of a length, whatever a model
makes of them.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from dgasr.audio import AudioConfig, open_audio
from dgasr.records import SAMPLE_RATE_HZ, seconds
from dgasr.samples import PEOPLE

READER_SPEAKER = "cv_c22c452a1374e12e"
READING_S = 180.0
"""Who reads for how long in one recording."""

SINGLE_S = (3.5, 7.0)
"""Length of the clips that are files of their own, and of the two that are a call."""

ANSWER_S = 2.0
"""When the second person of the call begins."""

FORMATS: dict[str, dict[str, Any]] = {
    "woman_reads.flac": {"rate_hz": 16_000},
    "wide_stereo.flac": {"rate_hz": 44_100, "channels": 2},
    "memo.mp3": {"rate_hz": 16_000},
    "memo_stereo.mp3": {"rate_hz": 44_100, "channels": 2},
    "note.ogg": {"rate_hz": 16_000},
    "voicemail_8khz.wav": {"rate_hz": 8_000},
}
"""One person each, in formats as people have them."""


def main() -> None:
    """Write the recordings and their manifest."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: python -m tools.make_people SPEECH16 [FOLDER]\n\n{__doc__}")
    source, folder = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else PEOPLE.parent
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (source / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    by_set = {
        name: [row for row in rows if row["set"] == name] for name in ("en_ljspeech", "en_cv_omnilingo", "en_cv_puri")
    }
    others = [row for row in by_set["en_cv_omnilingo"] if SINGLE_S[0] <= row["duration"] <= SINGLE_S[1]]
    read_out = [row for row in by_set["en_ljspeech"] if SINGLE_S[0] <= row["duration"] <= SINGLE_S[1]]
    singles = [read_out[0], *others[: len(FORMATS) - 1]]
    manifest = []
    for (name, shape), row in zip(FORMATS.items(), singles, strict=True):
        write(folder / name, waveform(source, row), **shape)
        manifest.append(described(name, [row], row["duration"]))
    call = others[len(FORMATS) - 1 :][:2]
    manifest.append(make_call(folder / "call_on_two_channels.flac", source, call))
    manifest.append(make_reading(folder / "one_person_reads_for_minutes.ogg", source, by_set["en_cv_puri"]))
    manifest += [make_cut_off(folder / "cut_off.wav", source, others[len(FORMATS) + 1]), *make_others(folder)]
    lines = "".join(json.dumps(row) + "\n" for row in manifest)
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
    sys.stderr.write(
        f"{len(manifest)} recordings, {sum(f.stat().st_size for f in folder.glob('*.*'))} bytes in {folder}\n"
    )


def waveform(source: Path, row: dict[str, Any]) -> np.ndarray:
    """Read a clip, at 16 kHz.  [samples]"""
    path = source / row["audio_filepath"]
    with path.open("rb") as file:
        return np.concatenate(list(open_audio(file, str(path), AudioConfig()).blocks()))


def write(path: Path, samples: np.ndarray, rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1) -> None:
    """Write a file in the format that its name says; [samples] or [samples, channels] at 16 kHz."""
    resampled = soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)
    frames = np.repeat(resampled[:, None], channels, axis=1) if channels > 1 else resampled
    with soundfile.SoundFile(path, "w", rate_hz, channels) as file:
        for start in range(0, len(frames), rate_hz):  # libsndfile crashes on minutes of Vorbis at once
            file.write(np.clip(frames[start : start + rate_hz], -1.0, 1.0))


def described(
    name: str, rows: Sequence[dict[str, Any]], duration_s: float, *, expected: str = "ok", channels: Iterable[str] = ()
) -> dict[str, Any]:
    """Make a row of the manifest.

    Args:
        name: of the file.
        rows: clips that it holds, in order.
        duration_s: length, s.
        expected: status that the lake should give it.
        channels: what is said on each channel, where they differ.
    """
    row = {
        "audio_filepath": name, "duration": round(duration_s, 4), "text": " ".join(own["text"] for own in rows),
        "language": "en", "speaker": ", ".join(dict.fromkeys(own["speaker"] for own in rows)) or None,
        "set": ", ".join(dict.fromkeys(own["set"] for own in rows)) or None,
        "licence": ", ".join(dict.fromkeys(own["licence"] for own in rows)) or "CC0", "expected": expected,
    }  # fmt: skip
    said = list(channels)
    return row | ({"channels": said} if said else {})


def make_call(path: Path, source: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put two people on the two channels of one file."""
    sides = [waveform(source, row) for row in rows]
    starts = (0, round(ANSWER_S * SAMPLE_RATE_HZ))
    samples = np.zeros((max(start + len(side) for start, side in zip(starts, sides, strict=True)), 2), np.float32)
    for channel, (start, side) in enumerate(zip(starts, sides, strict=True)):
        samples[start : start + len(side), channel] = side
    soundfile.write(path, samples, SAMPLE_RATE_HZ)
    return described(path.name, rows, seconds(len(samples)), channels=[row["text"] for row in rows])


def make_reading(path: Path, source: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join one person's clips to a long recording, with pauses of 0.4 to 2.5 s."""
    generator, pieces, used, total = np.random.default_rng(0), [], [], 0
    for row in rows:
        if row["speaker"] == READER_SPEAKER and total < READING_S * SAMPLE_RATE_HZ:
            pause = 1e-4 * generator.standard_normal(round(generator.uniform(0.4, 2.5) * SAMPLE_RATE_HZ))
            pieces += [waveform(source, row), pause.astype(np.float32)]
            total += sum(map(len, pieces[-2:]))
            used.append(row)
    write(path, np.concatenate(pieces))
    return described(path.name, used, seconds(total))


def make_cut_off(path: Path, source: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Write a file whose header promises all of a clip and whose bytes hold the first two thirds."""
    write(path, waveform(source, row))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return described(path.name, [row], row["duration"] * 2 / 3, expected="partial")


def make_others(folder: Path) -> list[dict[str, Any]]:
    """Write what holds no speech, and what cannot be read whole."""
    generator = np.random.default_rng(1)
    write(folder / "silence.flac", (1e-4 * generator.standard_normal(8 * SAMPLE_RATE_HZ)).astype(np.float32))
    write(folder / "noise.mp3", (0.1 * generator.standard_normal(8 * SAMPLE_RATE_HZ)).astype(np.float32))
    write(folder / "music.ogg", melody(generator))
    (folder / "encrypted.m4a").write_bytes(b"DRM\0" + generator.bytes(3000))
    lengths = {"silence.flac": 8.0, "noise.mp3": 8.0, "music.ogg": 12.0}
    rows = [described(name, [], length) for name, length in lengths.items()]
    return [*rows, described("encrypted.m4a", [], 3.0, expected="rejected")]


def melody(generator: np.random.Generator) -> np.ndarray:
    """Pluck 48 notes of a pentatonic scale, three of them sounding at a time (Karplus and Strong 1983)."""
    samples = np.zeros(12 * SAMPLE_RATE_HZ, np.float32)
    scale_hz = 220.0 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
    for index in range(48):
        period = round(SAMPLE_RATE_HZ / generator.choice(scale_hz))
        string, note = generator.uniform(-1, 1, period), []
        for _ in range(SAMPLE_RATE_HZ // period):
            note.append(string)
            string = 0.498 * (string + np.roll(string, 1))
        sound = np.concatenate(note).astype(np.float32)
        start = index * SAMPLE_RATE_HZ // 4
        end = min(start + len(sound), len(samples))
        samples[start:end] += 0.2 * sound[: end - start]
    return samples


if __name__ == "__main__":
    main()
