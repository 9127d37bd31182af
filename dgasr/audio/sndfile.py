"""Reading with libsndfile: containers whose samples lie there uncompressed, so that a length in the header is exact."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import soundfile

from dgasr.audio.headers import ChunkClaim
from dgasr.audio.joined import next_start
from dgasr.audio.source import Decoded, Source

SNDFILE_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"NIST", b"fap ", b" paf")
"""First bytes of WAV, W64, AIFF, AU, CAF, SPHERE and PAF files.

Compressed audio is libav's: libsndfile stops at the number of frames in the header, and for an MP3 that states none
at a guess (13.8 s of a reading of 53.3 s), without a word.
"""


def open_sndfile(source: Source, claim: ChunkClaim | None, block_values: int) -> Decoded | None:
    """Open a recording with libsndfile; `None` if it is not for it.

    `claim` is what its header says of its length, where that is known; `block_values` samples times channels are read
    at once.
    """
    if source.bytes_at(0, 4) not in SNDFILE_MAGICS:
        return None
    source.seek(0)
    file = None
    with suppress(soundfile.LibsndfileError):
        file = soundfile.SoundFile(source)
    source.check()
    if file is None or file.subtype.startswith("MPEG"):  # of which libsndfile's decoder prints what it finds damaged
        return None
    share_present = claim.share_present if claim else 1.0
    return Decoded(
        container=file.format.lower(),
        codec=file.subtype.lower(),
        sample_rate_hz=file.samplerate,
        num_channels=file.channels,
        declared_s=file.frames / file.samplerate / share_present if share_present and file.samplerate else None,
        is_cut_off=False,
        next_start=lambda: next_start(source, source.furthest),
        blocks=_read(file, source, max(1, block_values // file.channels)),
    )


def _read(file: soundfile.SoundFile, source: Source, block_frames: int) -> Iterator[np.ndarray]:
    source.furthest = 0
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
