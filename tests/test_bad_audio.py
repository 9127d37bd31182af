"""Every kind of bad audio ends with an enumerated reason and a message, and costs nothing that could be decoded."""

import os
import struct
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, Limits, open_audio
from dgasr.errors import AudioError, Reason, TooLongError, TruncatedError
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.store import list_objects, open_object

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 4 * SAMPLE_RATE_HZ).astype(np.float32)


def verdict(path, limits: Limits = Limits()) -> tuple[str, Reason | None, float]:  # noqa: B008
    """Read a file as a flow does: status, reason, seconds decoded."""
    (recording,) = list_objects(str(path))
    decoded = 0
    try:
        with open_object(recording) as file:
            for block in open_audio(file, recording.uri, AudioConfig(limits=limits)).blocks():
                decoded += block.size
    except AudioError as error:
        status = "partial" if isinstance(error, TruncatedError) else "rejected"
        return status if path.name in str(error) else "nameless", error.reason, decoded / SAMPLE_RATE_HZ
    return "ok", None, decoded / SAMPLE_RATE_HZ


def wav_bytes(*, rate_hz=SAMPLE_RATE_HZ, num_channels=1, claimed_bytes=None, samples=NOISE) -> bytes:
    """Write a WAV file by hand, so that its header can say anything."""
    data = (samples * 32767).astype("<i2").tobytes()
    claimed_bytes = len(data) if claimed_bytes is None else claimed_bytes
    width = 2 * num_channels
    fmt = struct.pack("<HHIIHH", 1, num_channels, rate_hz, rate_hz * width % 2**32, width, 16)
    head = b"RIFF" + struct.pack("<I", (36 + claimed_bytes) % 2**32) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    return head + b"data" + struct.pack("<I", claimed_bytes) + data


def truncate(path, share=0.6):
    os.truncate(path, int(path.stat().st_size * share))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "bad.wav"


def test_a_good_file_is_ok(file):
    file.write_bytes(wav_bytes())
    assert verdict(file) == ("ok", None, 4.0)


def test_an_empty_file_is_rejected(file):
    file.write_bytes(b"")
    assert verdict(file) == ("rejected", Reason.EMPTY_FILE, 0.0)


@pytest.mark.parametrize("content", [b"hello world\n" * 1000, np.random.default_rng(5).bytes(99_999), b"x"])
def test_what_is_no_audio_is_rejected(file, content):
    file.write_bytes(content)
    assert verdict(file) == ("rejected", Reason.UNKNOWN_FORMAT, 0.0)


def test_a_playlist_does_not_make_other_files_be_read(tmp_path, encode):
    encode(tmp_path / "secret.aac", NOISE[None], SAMPLE_RATE_HZ, "aac")
    file = tmp_path / "list.m3u8"
    file.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{tmp_path}/secret.aac\n#EXT-X-ENDLIST\n")
    assert verdict(file) == ("rejected", Reason.UNKNOWN_FORMAT, 0.0)


def test_a_video_without_sound_is_rejected(tmp_path):
    file = tmp_path / "video.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert verdict(file) == ("rejected", Reason.NO_AUDIO_STREAM, 0.0)


@pytest.mark.parametrize("tag", [b"enca", b"drms"])
def test_encrypted_audio_is_rejected(tmp_path, encode, tag):
    file = tmp_path / "protected.m4a"
    encode(file, NOISE[None], SAMPLE_RATE_HZ, "aac")
    file.write_bytes(file.read_bytes().replace(b"mp4a", tag, 1))
    assert verdict(file) == ("rejected", Reason.UNKNOWN_FORMAT, 0.0)


@pytest.mark.parametrize(("rate_hz", "num_channels"), [(0, 1), (SAMPLE_RATE_HZ, 0), (1, 1), (2**31 - 1, 1)])
def test_an_impossible_header_is_rejected(file, rate_hz, num_channels):
    file.write_bytes(wav_bytes(rate_hz=rate_hz, num_channels=num_channels))
    assert verdict(file) == ("rejected", Reason.INVALID_HEADER, 0.0)


def test_a_hundred_channels_are_rejected(file):
    soundfile.write(file, np.zeros((8000, 100)), SAMPLE_RATE_HZ)
    assert verdict(file) == ("rejected", Reason.TOO_MANY_CHANNELS, 0.0)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("num_samples", [1, 399])
def test_less_than_one_analysis_window_is_rejected(tmp_path, name, num_samples):
    soundfile.write(tmp_path / name, NOISE[:num_samples], SAMPLE_RATE_HZ)
    assert verdict(tmp_path / name)[:2] == ("rejected", Reason.TOO_SHORT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_rejected(file, value):
    samples = NOISE.copy()
    samples[50_000] = value
    soundfile.write(file, samples, SAMPLE_RATE_HZ, subtype="FLOAT")
    assert verdict(file) == ("rejected", Reason.NOT_FINITE, 0.0)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.ogg"])
def test_a_truncated_file_keeps_what_is_left(tmp_path, name):
    soundfile.write(tmp_path / name, NOISE, SAMPLE_RATE_HZ)
    truncate(tmp_path / name)
    status, reason, decoded_s = verdict(tmp_path / name)
    assert (status, reason) == ("partial", Reason.TRUNCATED)
    assert decoded_s == pytest.approx(2.4, abs=1.0)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.opus", "libopus"), ("a.webm", "libopus"), ("a.aac", "aac")]
)
def test_a_truncated_compressed_file_keeps_what_is_left(tmp_path, encode, name, codec):
    encode(tmp_path / name, NOISE[None], SAMPLE_RATE_HZ, codec)
    truncate(tmp_path / name)
    status, reason, decoded_s = verdict(tmp_path / name)
    assert (status, reason) == ("partial", Reason.TRUNCATED)
    assert decoded_s == pytest.approx(2.4, abs=0.5)


def test_a_truncated_mp4_with_its_index_first_keeps_what_is_left(tmp_path, encode):
    encode(tmp_path / "a.m4a", NOISE[None], SAMPLE_RATE_HZ, "aac", movflags="faststart")
    truncate(tmp_path / "a.m4a")
    assert verdict(tmp_path / "a.m4a")[:2] == ("partial", Reason.TRUNCATED)


def test_an_mp4_without_its_index_is_rejected(tmp_path, encode):
    encode(tmp_path / "a.m4a", NOISE[None], SAMPLE_RATE_HZ, "aac")
    truncate(tmp_path / "a.m4a")
    assert verdict(tmp_path / "a.m4a")[0] == "rejected"


def test_a_header_that_claims_too_much_is_partial(file):
    file.write_bytes(wav_bytes(claimed_bytes=20 * NOISE.size))
    assert verdict(file) == ("partial", Reason.TRUNCATED, 4.0)


def test_a_header_that_claims_too_little_loses_nothing(file):
    file.write_bytes(wav_bytes(claimed_bytes=3200))
    assert verdict(file) == ("partial", Reason.INVALID_HEADER, 4.0)


@pytest.mark.parametrize("claimed_bytes", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_header_written_before_the_length_was_known_is_ok(file, claimed_bytes):
    file.write_bytes(wav_bytes(claimed_bytes=claimed_bytes))
    assert verdict(file) == ("ok", None, 4.0)


def test_chunks_after_the_audio_are_no_audio(file):
    file.write_bytes(wav_bytes() + b"LIST" + struct.pack("<I", 8000) + bytes(8000))
    assert verdict(file) == ("ok", None, 4.0)


@pytest.mark.parametrize(("num_samples", "reason"), [(16_000_000, Reason.TRUNCATED), (8000, Reason.INVALID_HEADER)])
def test_a_flac_header_that_lies_about_its_length_loses_nothing(tmp_path, num_samples, reason):
    file = tmp_path / "a.flac"
    soundfile.write(file, NOISE, SAMPLE_RATE_HZ)
    data = bytearray(file.read_bytes())
    # The last 36 bits of these 8 bytes count the samples (RFC 9639, section 8.2).
    facts = int.from_bytes(data[18:26], "big")
    data[18:26] = (facts >> 36 << 36 | num_samples).to_bytes(8, "big")
    file.write_bytes(data)
    assert verdict(file) == ("partial", reason, 4.0)


def test_a_hole_in_the_middle_is_said_and_later_audio_stays_in_place(tmp_path, encode):
    file = tmp_path / "a.opus"
    encode(file, np.concatenate([NOISE] * 3)[None], SAMPLE_RATE_HZ, "libopus", page_duration="100000")
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    file.write_bytes(data)
    status, reason, decoded_s = verdict(file)
    assert (status, reason) == ("partial", Reason.CORRUPT_AUDIO)
    assert decoded_s == pytest.approx(12.0, abs=0.1)


def test_a_name_that_is_no_text_does_not_matter(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    with open(path, "wb") as file:
        file.write(wav_bytes())
    (recording,) = list_objects(str(tmp_path))
    with open_object(recording) as file:
        assert sum(block.size for block in open_audio(file, recording.uri, AudioConfig()).blocks()) == NOISE.size


@pytest.mark.parametrize("full_scale", [2**15, 2**23, 2**31])
@pytest.mark.parametrize("name", ["large.wav", "large.mkv"])
def test_floats_written_in_units_of_integers_are_brought_into_range(tmp_path, name, full_scale):
    right = np.concatenate([np.zeros(40_000, np.float32), NOISE])
    if name.endswith("wav"):
        soundfile.write(tmp_path / name, right * full_scale, SAMPLE_RATE_HZ, subtype="FLOAT")
    else:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("pcm_f32le", rate=SAMPLE_RATE_HZ, layout="mono")
            for start in range(0, right.size, 1000):
                samples = (right[None, start : start + 1000] * full_scale).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, start
                container.mux(stream.encode(frame))
    with (tmp_path / name).open("rb") as file:
        found = np.concatenate(list(open_audio(file, name, AudioConfig(block_values=7000)).blocks()))
    np.testing.assert_allclose(found, right, atol=1e-6)


@pytest.mark.parametrize("is_extensible", [True, False])
@pytest.mark.parametrize("shift", [0, 8])
@pytest.mark.parametrize("step", [1, 256])
def test_24_bits_in_32_are_read_whichever_they_are(file, is_extensible, shift, step):
    samples = (np.rint(NOISE * 2**23 / step) * step).astype("<i4")
    form = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE_HZ, 4 * SAMPLE_RATE_HZ, 4, 24)
    if is_extensible:
        form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, SAMPLE_RATE_HZ, 4 * SAMPLE_RATE_HZ, 4, 32, 22, 24, 4)
        form += bytes.fromhex("0100000000001000800000aa00389b71")
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 4 * samples.size)
    data = (samples << shift).astype("<i4").tobytes()
    file.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body) + len(data)) + b"WAVE" + body + data)
    with file.open("rb") as opened:
        found = np.concatenate(list(open_audio(opened, "a", AudioConfig()).blocks()))
    np.testing.assert_allclose(found, samples / 2**23, atol=1e-6)


def test_whole_numbers_are_units_of_integers_however_quiet_they_begin(file):
    quiet = np.random.default_rng(1).integers(-3, 4, 2 * SAMPLE_RATE_HZ)
    right = np.concatenate([quiet, np.rint(NOISE * 32_767)]) / 32_768
    soundfile.write(file, right * 32_768, SAMPLE_RATE_HZ, subtype="DOUBLE")
    with file.open("rb") as opened:
        found = np.concatenate(list(open_audio(opened, "a", AudioConfig()).blocks()))
    np.testing.assert_allclose(found, right, atol=1e-6)


def test_floats_that_leave_their_range_are_rejected(file):
    samples = np.concatenate([NOISE, 1000 * NOISE])
    soundfile.write(file, samples, SAMPLE_RATE_HZ, subtype="FLOAT")
    assert verdict(file)[:2] == ("rejected", Reason.SAMPLE_RANGE)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_recording_longer_than_allowed_is_rejected_as_soon_as_that_is_known(tmp_path, name):
    soundfile.write(tmp_path / name, np.zeros(30 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    with (tmp_path / name).open("rb") as file:
        pieces = open_audio(file, name, AudioConfig(limits=Limits(max_duration_s=20))).pieces()
        with pytest.raises(TooLongError, match="max_duration_s=20"):
            next(pieces)


def test_a_pausing_codec_is_silent_where_it_sent_nothing(tmp_path):
    speech = b"\x3c" + bytes(range(31))  # 20 ms of the 12.2 kbit/s mode; 0x7c: nothing to send
    (tmp_path / "a.amr").write_bytes(b"#!AMR\n" + speech * 50 + b"\x7c" * 200 + speech * 50)
    status, reason, decoded_s = verdict(tmp_path / "a.amr")
    assert (status, reason) == ("ok", None)
    assert decoded_s == pytest.approx(6.0, abs=0.05)


def test_a_small_claim_before_gigabytes_of_zeros_is_refused_by_its_size(file):
    file.write_bytes(wav_bytes(claimed_bytes=16_000))
    os.truncate(file, 8 * 2**30)  # sparse: 74 hours
    started = time.monotonic()
    assert verdict(file) == ("rejected", Reason.TOO_LONG, 0.0)
    assert time.monotonic() - started < 5


def test_few_bytes_that_decode_to_hours_are_refused(tmp_path):
    silence = np.zeros(4000 * 8000, np.int16)
    soundfile.write(tmp_path / "a.flac", silence, 8000)
    assert verdict(tmp_path / "a.flac") == ("ok", None, 4000.0)
    status, reason, decoded_s = verdict(tmp_path / "a.flac", Limits(min_bytes_per_s=200))
    assert (status, reason) == ("rejected", Reason.TOO_LARGE)
    assert decoded_s < 8000


def test_ten_hours_in_seven_kilobytes_are_refused(tmp_path, shared_data):
    bomb = tmp_path / "bomb.flac"
    subprocess.run([sys.executable, shared_data / "faults" / "bomb.py", bomb, "549"], check=True)
    assert bomb.stat().st_size < 8000
    status, reason, decoded_s = verdict(bomb)
    assert (status, reason) == ("rejected", Reason.TOO_LARGE)
    assert decoded_s < 8000
