"""Recordings in containers of every kind that is read: for the property test, and as seeds of the fuzz."""

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soundfile


@dataclass(frozen=True)
class Kind:
    """A container with a codec.

    Attributes:
        format: libav's muxer, or libsndfile's format where `codec` is empty.
        codec: libav's encoder, or libsndfile's subtype after a colon.
        rate_hz: a sample rate that both take.
        states_length: whether the container says how much audio is in it, so that what is missing is provable.
        has_gaps: whether timestamps may jump in it.
        late_s: priming that nobody leaves out (docs/time.md).
        most_channels: channels that the codec takes.
    """

    format: str
    codec: str
    rate_hz: int = 48_000
    states_length: bool = True
    has_gaps: bool = False
    late_s: float = 0.0
    most_channels: int = 2
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.format} {self.codec}"


KINDS = (
    Kind("WAV", ":PCM_16"), Kind("WAV", ":FLOAT", 16_000), Kind("WAV", ":ULAW", 8000), Kind("AIFF", ":PCM_24", 44_100),
    Kind("AU", ":PCM_16"), Kind("CAF", ":PCM_16"), Kind("W64", ":PCM_16"), Kind("RF64", ":PCM_16"),
    Kind("NIST", ":PCM_16", 16_000), Kind("PAF", ":PCM_16", states_length=False),
    Kind("OGG", ":VORBIS", 44_100), Kind("FLAC", ":PCM_16"),
    Kind("wav", "pcm_s24le"), Kind("wav", "adpcm_ima_wav", 22_050), Kind("w64", "pcm_s16le"), Kind("caf", "alac"),
    Kind("tta", "tta"), Kind("wv", "wavpack"), Kind("mp3", "libmp3lame", 44_100),
    Kind("mp3", "libmp3lame", 16_000, states_length=False, options=(("write_xing", "0"),)),
    Kind("mp2", "mp2", 44_100, states_length=False), Kind("adts", "aac", 44_100, states_length=False),
    Kind("ac3", "ac3", states_length=False), Kind("eac3", "eac3", states_length=False),
    Kind("mp4", "aac"), Kind("mp4", "alac", 44_100), Kind("mov", "pcm_s16le"),
    Kind("mov", "aac", 22_050),
    Kind("3gp", "libopencore_amrnb", 8000, most_channels=1),
    Kind("amr", "libopencore_amrnb", 8000, states_length=False, most_channels=1),
    Kind("opus", "libopus", has_gaps=True), Kind("ogg", "flac", 16_000), Kind("ogg", "libopus"),
    Kind("matroska", "aac", has_gaps=True), Kind("matroska", "flac", has_gaps=True),
    Kind("matroska", "libmp3lame", 44_100, has_gaps=True), Kind("matroska", "pcm_s16le", 16_000, has_gaps=True),
    Kind("webm", "libopus", has_gaps=True),
    Kind("mpegts", "aac", states_length=False, has_gaps=True, late_s=1024 / 48_000),
    Kind("mpegts", "mp2", states_length=False, has_gaps=True, late_s=481 / 48_000),
    Kind("mpeg", "mp2", states_length=False, late_s=481 / 48_000),
    Kind("flv", "aac", 44_100, late_s=1024 / 44_100),
    Kind("avi", "pcm_s16le"), Kind("avi", "libmp3lame", 44_100, late_s=1105 / 44_100),
    Kind("asf", "wmav2", 44_100, late_s=2048 / 44_100),
)  # fmt: skip


def make_file(kind: Kind, waveform: np.ndarray, gap: tuple[int, int] = (0, 0), start: int = 0) -> bytes:
    """Write a recording.

    Args:
        kind: container and codec.
        waveform: at the kind's rate.  [channels, samples]
        gap: sample from which timestamps jump, and by how many samples.
        start: timestamp of the first sample, in samples.
    """
    file = io.BytesIO()
    if kind.codec.startswith(":"):
        soundfile.write(file, waveform.T, kind.rate_hz, format=kind.format, subtype=kind.codec[1:])
        return file.getvalue()
    layout = {1: "mono", 2: "stereo"}[waveform.shape[0]]
    with av.open(file, "w", format=kind.format, options=dict(kind.options)) as container:
        stream = container.add_stream(kind.codec, rate=kind.rate_hz, layout=layout)
        if kind.codec == "wmav2":
            stream.bit_rate = 128_000  # it has no default
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=kind.rate_hz)
        size = stream.codec_context.frame_size or 1024
        for first in range(0, waveform.shape[1], size):
            block = np.ascontiguousarray(waveform[:, first : first + size], np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base = kind.rate_hz, Fraction(1, kind.rate_hz)
            pts = start + first + (gap[1] if gap[1] and first >= gap[0] else 0)
            for converted in resampler.resample(frame):
                converted.pts, converted.time_base = pts, Fraction(1, kind.rate_hz)
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return file.getvalue()
