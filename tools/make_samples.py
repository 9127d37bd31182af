"""Make the sample recordings again: synthetic voices in, small files in many formats and their manifest out.

Run as `python -m tools.make_samples [FOLDER]` (`make samples`) where espeak-ng, flite and ffmpeg are installed. The
same versions of these programs give the same bytes. Words are spoken one by one and joined: their times are exact.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ, seconds
from dgasr.samples import SAMPLES

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ROOM_NOISE = 10 ** (-72 / 20)
"""Amplitude of the noise under all speech, so that no pause is digital silence."""

SPEECH_THRESHOLD = 10 ** (-40 / 20)
"""Amplitude, relative to a word's peak, where the word begins and ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample: who says what, and how it is written."""

    name: str
    """File name; its ending names the container."""
    digits: str
    """Digits to speak; a blank is a pause of `pause_s`, more blanks a longer one."""
    voice: str = ""
    """`espeak:VOICE` or `flite:VOICE`; empty for a sample without speech."""
    rate_hz: int = SAMPLE_RATE_HZ
    """Sample rate of the file."""
    channels: int = 1
    """Channels of the file, all alike."""
    encoder: tuple[str, ...] = ()
    """ffmpeg's options for the codec; empty writes 16-bit PCM or FLAC."""
    pause_s: float = 4.0
    """What one blank in `digits` stands for, s."""
    expected: str = "ok"
    """Status that the lake should give the recording."""


SPOKEN = (
    Sample(name="american_man.flac", digits="31415926", voice="espeak:en-us+m3"),
    Sample(name="american_woman.mp3", digits="2718281", voice="flite:slt", encoder=("-b:a", "40k")),
    Sample(name="british_woman_44khz_stereo.mp3", digits="160934", voice="espeak:en-gb+f2", rate_hz=44_100, channels=2,
           encoder=("-b:a", "64k")),
    Sample(name="caribbean_man_44khz_stereo.m4a", digits="58209", voice="espeak:en-029+m5", rate_hz=44_100, channels=2,
           encoder=("-c:a", "aac", "-b:a", "64k")),
    Sample(name="scottish_woman.ogg", digits="70041", voice="espeak:en-gb-scotland+f4",
           encoder=("-c:a", "libvorbis", "-q:a", "3")),
    Sample(name="scottish_man_webm_opus.webm", digits="46385", voice="flite:awb", rate_hz=48_000,
           encoder=("-c:a", "libopus", "-b:a", "32k")),
    Sample(name="telephone_8khz.wav", digits="5550139", voice="flite:kal", rate_hz=8_000),
    Sample(name="american_man_44khz.flac", digits="9024", voice="flite:rms", rate_hz=44_100),
    Sample(name="several_minutes_with_silences.ogg", digits="31  4159 26535   8979 323  84626    433 83279  50288",
           voice="espeak:en-us+f1", pause_s=10.0, encoder=("-c:a", "libvorbis", "-q:a", "2")),
)  # fmt: skip
"""Samples with speech in whole files."""

TRUNCATED = Sample(name="truncated_8khz.wav", digits="86753090", voice="flite:kal16", rate_hz=8_000, expected="partial")
"""Its header promises all digits, its bytes hold the first half."""


def main() -> None:
    """Write all samples and their manifest into the folder named on the command line, or into `dgasr/samples`."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_make_spoken(sample, folder) for sample in SPOKEN]
    rows += [_make_truncated(folder), _make_silence(folder), _make_noise(folder), _make_encrypted(folder)]
    lines = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: str(row["audio_filepath"])))
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
    sys.stderr.write(f"{len(rows)} samples in {folder}, {sum(f.stat().st_size for f in folder.glob('*.*'))} bytes\n")


def speak(voice: str, word: str) -> np.ndarray:
    """Speak one word.

    Args:
        voice: `espeak:VOICE` or `flite:VOICE`.
        word: what to say.

    Returns:
        The word without silence around it, peak 0.5, at 16 kHz.  [samples]

    Raises:
        ConfigError: the program is not installed.
    """
    program, name = voice.split(":")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/word.wav"
        commands = {
            "espeak": ["espeak-ng", "-v", name, "-s", "150", "-w", path, word],
            "flite": ["flite", "-voice", name, "-t", word, "-o", path],
        }
        _run(commands[program])
        waveform, rate_hz = soundfile.read(path, dtype="float32")
    waveform = waveform if rate_hz == SAMPLE_RATE_HZ else soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(waveform) > SPEECH_THRESHOLD * np.abs(waveform).max())
    waveform = waveform[loud[0] : loud[-1] + 1]
    return 0.5 * waveform / np.abs(waveform).max()


def _say(sample: Sample) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Join a sample's digits; the waveform  [samples]  and its words with their times."""
    generator = np.random.default_rng(len(sample.digits))
    position, pieces, words = SAMPLE_RATE_HZ // 3, [], []
    for sign in re.sub(r"(?<=\d)(?=\d)", "-", sample.digits):
        if sign == " ":
            position += round(sample.pause_s * SAMPLE_RATE_HZ)
        elif sign == "-":
            position += round(generator.uniform(0.08, 0.30) * SAMPLE_RATE_HZ)
        else:
            piece = speak(sample.voice, DIGITS[int(sign)])
            words.append({"word": DIGITS[int(sign)], "start_s": seconds(position)})
            pieces.append((position, piece))
            position += len(piece)
            words[-1]["end_s"] = seconds(position)
    waveform = ROOM_NOISE * generator.standard_normal(position + SAMPLE_RATE_HZ // 3)
    for start, piece in pieces:
        waveform[start : start + len(piece)] += piece
    return waveform, words


def _make_spoken(sample: Sample, folder: Path) -> dict[str, object]:
    waveform, words = _say(sample)
    _write(waveform, sample, folder / sample.name)
    return _row(sample, seconds(len(waveform)), words)


def _make_truncated(folder: Path) -> dict[str, object]:
    waveform, words = _say(TRUNCATED)
    path = folder / TRUNCATED.name
    _write(waveform, TRUNCATED, path)
    kept = words[: len(words) // 2]
    middle_s = (float(str(kept[-1]["end_s"])) + float(str(words[len(kept)]["start_s"]))) / 2
    header_bytes, bytes_per_sample = 44, 2
    path.write_bytes(path.read_bytes()[: header_bytes + bytes_per_sample * round(middle_s * TRUNCATED.rate_hz)])
    return _row(TRUNCATED, middle_s, kept)


def _make_silence(folder: Path) -> dict[str, object]:
    sample = Sample(name="silence.flac", digits="")
    _write(1e-4 * np.random.default_rng(0).standard_normal(12 * SAMPLE_RATE_HZ), sample, folder / sample.name)
    return _row(sample, 12.0, [])


def _make_noise(folder: Path) -> dict[str, object]:
    sample = Sample(name="white_noise.mp3", digits="", encoder=("-b:a", "48k"))
    _write(0.1 * np.random.default_rng(1).standard_normal(8 * SAMPLE_RATE_HZ), sample, folder / sample.name)
    return _row(sample, 8.0, [])


def _make_encrypted(folder: Path) -> dict[str, object]:
    """Write bytes that no decoder knows, as a protected recording looks from outside."""
    sample = Sample(name="encrypted.m4a", digits="", expected="rejected")
    (folder / sample.name).write_bytes(b"DRM\0" + np.random.default_rng(2).bytes(3000))
    return _row(sample, 3.0, [])


def _write(waveform: np.ndarray, sample: Sample, path: Path) -> None:
    resampled = soxr.resample(waveform, SAMPLE_RATE_HZ, sample.rate_hz)
    frames = np.repeat(np.clip(resampled, -1.0, 1.0)[:, None], sample.channels, axis=1)
    if not sample.encoder:
        soundfile.write(path, frames, sample.rate_hz, subtype="PCM_16")
        return
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(f"{folder}/in.wav", frames, sample.rate_hz, subtype="PCM_16")
        exact = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"]
        _run(["ffmpeg", "-v", "error", "-y", "-i", f"{folder}/in.wav", *exact, *sample.encoder, str(path)])


def _row(sample: Sample, duration_s: float, words: Sequence[dict[str, object]]) -> dict[str, object]:
    return {
        "audio_filepath": sample.name,
        "duration": round(duration_s, 4),
        "text": " ".join(str(word["word"]) for word in words),
        "language": "en",
        "speaker": sample.voice or None,
        "words": list(words),
        "expected": sample.expected,
    }


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{command[0]} is not installed: apt-get install espeak-ng flite ffmpeg.") from error


if __name__ == "__main__":
    main()
