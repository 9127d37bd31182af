"""Reading with libsndfile: containers whose samples lie there uncompressed, so that a length in the header is exact."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import soundfile

from dgasr.audio.headers import ChunkClaim
from dgasr.audio.source import Decoded, Source
from dgasr.errors import SampleRangeError

SNDFILE_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"NIST", b"Crea", b"fap ", b" paf")
"""First bytes of WAV, W64, AIFF, AU, CAF, SPHERE, VOC and PAF files.

Compressed audio is libav's: libsndfile stops at the number of frames in the header, and for an MP3 that states none
at a guess (13.8 s of a reading of 53.3 s), without a word.
"""

LOUDEST_FLOAT = 16.0
"""24 dB above full scale: no floating-point file in [-1, 1] is as loud."""


def open_sndfile(source: Source, claim: ChunkClaim | None, block_values: int) -> Decoded | None:
    """Open a recording with libsndfile.

    Args:
        source: the recording.
        claim: what its header says of its length, where that is known.
        block_values: samples times channels to read at once.

    Returns:
        The opened recording; `None` if it is not for libsndfile.
    """
    if source.bytes_at(0, 4) not in SNDFILE_MAGICS:
        return None
    source.seek(0)
    file = None
    with suppress(soundfile.LibsndfileError):
        file = soundfile.SoundFile(source)
    source.check()
    if file is None:
        return None
    share_present = claim.share_present if claim else 1.0
    blocks = _read(file, source, max(1, block_values // file.channels))
    return Decoded(
        container=file.format.lower(),
        codec=file.subtype.lower(),
        sample_rate_hz=file.samplerate,
        num_channels=file.channels,
        declared_s=file.frames / file.samplerate / share_present if share_present and file.samplerate else None,
        is_cut_off=False,
        blocks=_in_range(blocks, file.samplerate, source.label) if file.subtype in ("FLOAT", "DOUBLE") else blocks,
    )


def _in_range(blocks: Iterator[np.ndarray], sample_rate_hz: int, label: str) -> Iterator[np.ndarray]:
    """Bring floating-point samples that were written in units of 16-bit integers to [-1, 1].

    The first second with sound decides: in such files its smallest sound is 1, and in others the loudest hardly more.

    Raises:
        SampleRangeError: what follows does not fit.
    """
    scale: np.float32 | None = None
    peak, num_left = 0.0, sample_rate_hz
    waiting: list[np.ndarray] = []
    for block in blocks:
        if scale is None:
            waiting.append(block)
            sounding = np.flatnonzero(np.abs(block).max(axis=1)) if num_left == sample_rate_hz else np.arange(1)
            if not sounding.size:
                yield waiting.pop()
                continue
            judged = block[sounding[0] : sounding[0] + num_left]
            peak, num_left = max(peak, float(np.abs(judged).max())), num_left - len(judged)
            if num_left:
                continue
            scale = _scale(peak)
            yield from (_checked(held * scale, label) for held in waiting)
        else:
            yield _checked(block * scale, label)
    if scale is None:
        yield from (held * _scale(peak) for held in waiting)


def _scale(peak: float) -> np.float32:
    """Return what brings samples to [-1, 1], by the loudest of the first second."""
    return np.float32(1 / 32768 if LOUDEST_FLOAT < peak < np.inf else 1.0)


def _checked(block: np.ndarray, label: str) -> np.ndarray:
    if LOUDEST_FLOAT < np.abs(block).max(initial=0.0) < np.inf:  # what is infinite is refused as that
        raise SampleRangeError(
            f"{label}: its floating-point samples begin within [-1, 1] and go on up to {np.abs(block).max():.0f}. "
            "Write it anew in the range [-1, 1], or as integers."
        )
    return block


def _read(file: soundfile.SoundFile, source: Source, block_frames: int) -> Iterator[np.ndarray]:
    # `SoundFile.blocks` would hand out a stale buffer where a file ends early; `read` returns what there is.
    with file:
        while True:
            try:
                block = file.read(block_frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                source.check()
                return
            source.check()
            if len(block) == 0:
                return
            yield block
