"""What `make fuzz` found, made small: none of it raises what nobody foresaw, and none of it prints."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig
from dgasr.audio.libav import _Sounding
from dgasr.errors import DamagedError
from tests.audio.containers import Kind, make_file
from tests.audio.test_timeline import RATE_HZ, frame, timeline
from tests.proofs.fuzz import read

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 24_000)).astype(np.float32)
MPEG_TS = Kind("mpegts", "aac")


def not_numbers():
    file = io.BytesIO()
    soundfile.write(file, np.where(np.arange(24_000) % 50, NOISE[0], np.nan), 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def stereo(num_frames, kind="WAV"):
    file = io.BytesIO()
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, (num_frames, 2))
    soundfile.write(file, noise, 44_100, format=kind)
    return file.getvalue()


def longer_than_a_file_can_be():
    data = stereo(44_100, "RF64")
    at = data.index(b"ds64") + 8
    return data[:at] + b"\xff" * 8 + data[at + 8 :]


def chained_without_beginning():
    """Join two Ogg files, and take from the first page of the first its mark that it begins a stream."""
    first, second = (make_file(Kind("ogg", codec), NOISE) for codec in ("flac", "libopus"))
    return first[:5] + b"\0" + first[6:] + second


def stream_that_comes_later():
    """Join an MPEG-TS file of one track and one of three."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        streams = [container.add_stream("aac", rate=48_000, layout="mono") for _ in range(3)]
        for start in range(0, 23_000, 1024):
            for stream in streams:
                part = av.AudioFrame.from_ndarray(NOISE[:, start : start + 1024].copy(), format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = 48_000, start, Fraction(1, 48_000)
                container.mux(stream.encode(part))
    return make_file(MPEG_TS, NOISE) + file.getvalue()


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (not_numbers, "rejected not_finite"), (chained_without_beginning, "rejected"), (stream_that_comes_later, ""),
        (longer_than_a_file_can_be, ""), (lambda: stereo(44_105), "ok"),
        (lambda: bytes.fromhex("464f524d000204fa41494646434f4d4d00000012004200005622"), "rejected"),
    ],
)  # fmt: skip
def test_it_ends_with_a_row_and_nothing_on_a_terminal(make, outcome, recwarn, capfd):
    assert read(make(), AudioConfig()).startswith(outcome)
    assert capfd.readouterr().err == ""
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []


def test_a_frame_that_cannot_be_brought_to_the_streams_rate_is_damage(monkeypatch):
    class Refusing:  # as libav does 33 channels in the middle of an FLV file
        def __init__(self, **settings: object) -> None: ...

        def resample(self, refused: av.AudioFrame) -> list[av.AudioFrame]:
            raise av.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr("dgasr.audio.timeline.AudioResampler", Refusing)
    blocks = timeline().align([frame(0), frame(1000, rate_hz=2 * RATE_HZ), frame(2000)])
    with pytest.raises(DamagedError, match="1 packets, the first of them: Invalid argument"):
        list(blocks)


def test_frames_without_samples_and_a_rate_of_2_hz_on_one_of_several_tracks_print_nothing(recwarn):
    heard = _Sounding()
    for num_frames, rate_hz in ((0, 16_000), (16_000, 16_000), (4, 2)):
        heard.add(np.full((num_frames, 1), 0.1, np.float32), rate_hz)
    assert (round(heard.sounding_s), list(recwarn)) == (3, [])
