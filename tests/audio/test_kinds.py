"""Kinds of files that came out wrong although nobody had complained yet (docs/experiments.md, 2026-11-29)."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import TruncatedError
from dgasr.records import SAMPLE_RATE_HZ, Gap
from tests.audio.containers import Kind, make_file
from tests.audio.test_stream import tone, write_tracks

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 5 * 48_000)).astype(np.float32)


def read(data):
    """Read a file: its pieces, the report, and why it is not whole."""
    stream, pieces, message = open_audio(io.BytesIO(data), "a", AudioConfig()), [], ""
    try:
        pieces.extend(stream.pieces())
    except TruncatedError as error:
        message = str(error)
    return pieces, stream.report(), message


def seconds_of(pieces):
    return sum(piece.num_samples if isinstance(piece, Gap) else len(piece) for piece in pieces) / SAMPLE_RATE_HZ


def speech(duration_s):
    """Make sound that comes and goes four times a second."""
    return tone(duration_s, 48_000) * (np.arange(round(duration_s * 48_000)) // 6000 % 2).astype(np.float32)


def test_a_track_that_hums_is_not_the_one_on_which_somebody_speaks(tmp_path):
    write_tracks(tmp_path / "a.mkv", [(tone(4.0, 48_000, 60.0), 0.0), (speech(3.0), 0.0)])
    assert read((tmp_path / "a.mkv").read_bytes())[1].audio_track == 1


def test_speech_that_begins_behind_the_part_that_is_probed_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("dgasr.audio.libav.PROBED_S", 1.0)
    write_tracks(tmp_path / "a.mkv", [(np.zeros(6 * 48_000, np.float32), 0.0), (speech(2.0), 3.0)])
    assert read((tmp_path / "a.mkv").read_bytes())[1].audio_track == 1


PAGED = Kind("opus", "libopus", options=(("page_duration", "200000"),))


@pytest.mark.parametrize("kind", [Kind("mp4", "aac"), PAGED], ids=str)
def test_where_nothing_was_sent_there_is_a_gap_and_no_damage(kind):
    pieces, _, message = read(make_file(kind, NOISE, gap=(2 * 48_000, 40 * 48_000)))
    assert message == ""
    assert [piece.num_samples / SAMPLE_RATE_HZ for piece in pieces if isinstance(piece, Gap)] == [
        pytest.approx(40, abs=0.05)
    ]
    assert seconds_of(pieces) == pytest.approx(45, abs=0.05)


def test_a_page_that_is_missing_is_damage():
    data = make_file(PAGED, NOISE)
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    pieces, _, message = read(data[: pages[8]] + data[pages[12] :])
    assert "lost or damaged" in message
    assert seconds_of(pieces) == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("riff_bytes", [None, 0, 0xFFFFFFFF])
def test_a_whole_avi_file_is_not_cut_off_whatever_it_counts(riff_bytes):
    data = bytearray(make_file(Kind("avi", "libmp3lame", 44_100), NOISE))
    at = data.index(b"auds") + 32  # of the stream header: its length
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 500).to_bytes(4, "little")
    if riff_bytes is not None:
        data[4:8] = riff_bytes.to_bytes(4, "little")
    _, report, message = read(bytes(data))
    assert (report.declared_s, message) == (None, "")


def test_a_length_of_a_video_says_nothing_of_its_sound():
    file = io.BytesIO()
    with av.open(file, "w", format="asf") as container:
        video, audio = container.add_stream("msmpeg4", rate=10), container.add_stream("wmav2", rate=44_100)
        audio.layout, audio.bit_rate = "mono", 128_000
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for number in range(50):
            picture.pts, picture.time_base = number, Fraction(1, 10)
            container.mux(video.encode(picture))
        for start in range(0, 44_100 * 3, 2048):
            frame = av.AudioFrame.from_ndarray(NOISE[:, start : start + 2048].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, start, Fraction(1, 44_100)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    _, report, message = read(file.getvalue())
    assert (report.declared_s, message) == (None, "")


def test_an_flv_file_that_begins_late_states_nothing():
    _, report, message = read(make_file(Kind("flv", "aac", 44_100), NOISE, start=7 * 44_100))
    assert (report.declared_s, message) == (None, "")


def test_a_length_that_may_be_from_zero_or_from_the_first_packet_states_nothing():
    data = make_file(Kind("matroska", "flac"), NOISE, start=48_000)
    by_libav = read(data)[1].declared_s
    by_another = read(data.replace(b"Lavf", b"else"))[1].declared_s
    assert (by_libav, by_another) == (pytest.approx(5, abs=0.05), None)


@pytest.mark.parametrize("kind", [Kind("voc", "pcm_s16le", 16_000), Kind("latm", "aac", 16_000)], ids=str)
def test_nothing_of_a_container_is_taken_for_sound(kind):
    clicks = np.zeros((1, 48_000), np.float32)
    clicks[:, 16_000:16_160] = 0.5
    pieces, _, message = read(make_file(kind, clicks))
    heard = np.flatnonzero(np.abs(np.concatenate(pieces)) > 0.1)
    assert message == ""
    assert [heard[0] / 16_000, heard[-1] / 16_000] == pytest.approx([1.0, 1.01], abs=0.005)


def test_mp3_in_a_wav_file_is_read_by_the_decoder_that_prints_nothing(capfd):
    pieces, report, message = read(make_file(Kind("wav", "libmp3lame", 16_000), NOISE[:, :48_000]))
    assert (report.codec, message) == ("mp3float", "")
    assert seconds_of(pieces) == pytest.approx(3, abs=0.15)
    assert capfd.readouterr().err == ""


def test_a_rate_that_changes_in_raw_aac_makes_no_gap():
    parts = [make_file(Kind("adts", "aac", rate_hz), NOISE[:, : 2 * rate_hz]) for rate_hz in (16_000, 44_100)]
    pieces, _, message = read(b"".join(parts))
    assert message == ""
    assert seconds_of(pieces) == pytest.approx(4, abs=0.2)
