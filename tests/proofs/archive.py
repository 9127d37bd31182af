"""An archive to prove things with: spoken digits in many formats, one in ten of them bad, the same for the same seed.

Words are cut out of the bundled samples at their known times and put together anew, so every text is known.
"""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import Reason, TruncatedError
from dgasr.manifests import read_manifest
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.samples import MANIFEST
from tests.conftest import _encode
from tests.stages.test_bad_input import BAD

BAD_EVERY = 10
"""One recording in so many is bad."""

ROOM_NOISE = 10 ** (-70 / 20)
"""Amplitude of the noise under all speech, so that no pause is digital silence."""

CALL = ".call.flac"
"""Ending of recordings of two people who speak at once, one on each channel."""

WITHHELD = {
    "vanished": Reason.OBJECT_MISSING,
    "forbidden": Reason.UNREADABLE,
    "replaced": Reason.CHANGED_DURING_READ,
}
"""Words in a key for which `tests/proofs/faults.py` lists the object and does not give it, and the row it then gets."""

Write = Callable[[Path, np.ndarray, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One recording of the archive, and the row it should get."""

    name: str
    text: str
    """What is said in it, channel by channel; empty for one that cannot be used or holds no speech."""
    status: str
    reason: str | None


def make_archive(
    folder: Path, num_recordings: int, *, seed: int, is_withheld: bool, num_words: int = 6, has_bad: bool = True
) -> list[Entry]:
    """Write an archive.

    Args:
        folder: where to; made if need be.
        num_recordings: how many files.
        seed: the same files come from the same seed.
        is_withheld: also write objects that the fault proxy lists and does not give.
        num_words: most words in a recording.
        has_bad: one in ten is bad; otherwise none.

    Returns:
        What each file is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spoken, bad = _voices(), _bad_kinds(is_withheld)
    entries = []
    for number in range(num_recordings):
        generator = np.random.default_rng([seed, number])
        if has_bad and number % BAD_EVERY == BAD_EVERY - 1:
            entries.append(_write_bad(folder, number, bad))
        else:
            entries.append(_write_good(folder, number, spoken, num_words, generator))
    return entries


def write_entries(path: Path, entries: list[Entry]) -> None:
    """Write down what the files are, one JSON object a line."""
    path.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in entries), encoding="utf-8")


def _write_good(
    folder: Path, number: int, spoken: list[dict[str, np.ndarray]], most: int, generator: np.random.Generator
) -> Entry:
    suffix, rate_hz, write = FORMATS[number % len(FORMATS)]
    name, texts, channels = f"{number:05d}{suffix}", [], []
    for _ in range(2 if suffix == CALL else 1):
        voice = spoken[generator.integers(len(spoken))]
        words = [str(word) for word in generator.choice(sorted(voice), size=generator.integers(2, most + 1))]
        texts += words
        channels.append(_speech(words, voice, generator))
    longest = max(channel.size for channel in channels)
    waveform = np.stack([np.pad(channel, (0, longest - channel.size)) for channel in channels], axis=1)
    write(folder / name, waveform.squeeze(axis=1) if len(channels) == 1 else waveform, rate_hz)
    return Entry(name=name, text=" ".join(texts), status="ok", reason=None)


def _speech(words: list[str], voice: dict[str, np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Join words with short pauses over a little noise; [samples] at `SAMPLE_RATE_HZ`."""
    pieces = [np.zeros(round(0.3 * SAMPLE_RATE_HZ))]
    for word in words:
        pieces += [voice[word], np.zeros(round(generator.uniform(0.1, 0.3) * SAMPLE_RATE_HZ))]
    waveform = np.concatenate([*pieces, pieces[0]])
    return (waveform + ROOM_NOISE * generator.standard_normal(waveform.size)).astype(np.float32)


def _voices() -> list[dict[str, np.ndarray]]:
    """Cut the samples into words; by voice, the first sound of each word."""
    voices = []
    for utterance in read_manifest(MANIFEST):
        if not utterance.words:
            continue
        with open(utterance.audio_filepath, "rb") as file, suppress(TruncatedError):
            waveform = np.concatenate(list(open_audio(file, utterance.audio_filepath, AudioConfig()).blocks()))
            voices.append(
                {word.word: _faded(waveform[word.start_sample : word.end_sample]) for word in utterance.words}
            )
    return voices


def _faded(waveform: np.ndarray) -> np.ndarray:
    """Let a word begin and end without a click."""
    ramp = np.minimum(1.0, np.arange(waveform.size) / (0.005 * SAMPLE_RATE_HZ))
    return waveform * ramp * ramp[::-1]


def _bad_kinds(is_withheld: bool) -> list[tuple[str, Callable[[Path], object], str, str]]:
    kinds = [(name, write, status, reason) for name, (write, status, reason) in BAD.items()]
    if is_withheld:
        kinds += [
            (f"{word}.wav", lambda path: soundfile.write(path, np.zeros(16_000), 16_000), "rejected", reason)
            for word, reason in WITHHELD.items()
        ]
    return kinds


def _write_bad(folder: Path, number: int, kinds: list[tuple[str, Callable[[Path], object], str, str]]) -> Entry:
    kind, write, status, reason = kinds[number // BAD_EVERY % len(kinds)]
    name = f"{number:05d}_{kind}"
    write(folder / name)
    return Entry(name=name, text="", status=status, reason=str(reason))


def _by_sndfile(subtype: str | None = None) -> Write:
    def write(path: Path, waveform: np.ndarray, rate_hz: int) -> None:
        soundfile.write(path, _resampled(waveform, rate_hz), rate_hz, subtype=subtype)

    return write


def _by_libav(codec: str) -> Write:
    def write(path: Path, waveform: np.ndarray, rate_hz: int) -> None:
        # Without `bitexact` libav puts random ids into the file, and equal seeds would give other ETags.
        resampled = _resampled(waveform, rate_hz)[None]
        _encode(path, resampled, rate_hz, codec, {"flags": "+bitexact"}, fflags="+bitexact")

    return write


def _vorbis(path: Path, waveform: np.ndarray, rate_hz: int) -> None:
    """Write Vorbis with libsndfile, then wrap its packets anew: libsndfile numbers its streams at random."""
    packed = io.BytesIO()
    soundfile.write(packed, _resampled(waveform, rate_hz), rate_hz, format="OGG", subtype="VORBIS")
    packed.seek(0)
    with av.open(packed) as source, av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)


def _resampled(waveform: np.ndarray, rate_hz: int) -> np.ndarray:
    return np.clip(soxr.resample(waveform, SAMPLE_RATE_HZ, rate_hz), -1.0, 1.0)


FORMATS: tuple[tuple[str, int, Write], ...] = (
    (".flac", 16_000, _by_sndfile()),
    (".wav", 16_000, _by_sndfile("PCM_16")),
    (".mp3", 16_000, _by_libav("libmp3lame")),
    (".ogg", 16_000, _vorbis),
    (".m4a", 44_100, _by_libav("aac")),
    (".webm", 48_000, _by_libav("libopus")),
    (CALL, 44_100, _by_sndfile()),
    (".telephone.wav", 8_000, _by_sndfile("ULAW")),
    (".opus", 48_000, _by_libav("libopus")),
    (".aiff", 22_050, _by_sndfile("PCM_24")),
    (".wide.wav", 16_000, _by_sndfile("PCM_32")),
)
"""Ending, sample rate (Hz) and writer of each format; eleven, so that bad ones do not always replace the same one."""
