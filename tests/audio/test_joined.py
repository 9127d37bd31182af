"""A file that is several recordings is read to its end; lengths that its writer did not know hide nothing."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.audio.joined import Repeated, Spliced, end_before_next, split_joined
from dgasr.audio.source import Source
from dgasr.errors import TruncatedError
from dgasr.records import Gap
from tests.audio.containers import Kind, make_file

NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 96_000)).astype(np.float32)


def written(seed, rate_hz, kind, duration_s=1.0, num_channels=1):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(duration_s * rate_hz), num_channels))
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind)
    return file.getvalue()


def lengths(data):
    return [part.num_bytes for part in split_joined(Source(io.BytesIO(data), "a"))]


def decode(data):
    return np.concatenate(list(open_audio(io.BytesIO(data), "a", AudioConfig()).blocks()))


@pytest.mark.parametrize("kind", ["WAV", "OGG"])
def test_recordings_joined_in_one_file_are_found(kind):
    parts = [written(0, 16_000, kind), written(1, 44_100, kind, num_channels=2), written(2, 16_000, kind)]
    assert lengths(b"".join(parts)) == [len(part) for part in parts]


@pytest.mark.parametrize("kind", ["WAV", "OGG", "FLAC", "AIFF"])
def test_one_recording_is_one_part(kind):
    data = written(0, 16_000, kind)
    assert lengths(data) == [len(data)]


@pytest.mark.parametrize("kind", ["WAV", "OGG"])
def test_all_of_them_are_heard_whatever_their_rates(kind):
    first, second = written(0, 16_000, kind), written(1, 44_100, kind, 2.0, num_channels=2)
    np.testing.assert_allclose(decode(first + second), np.concatenate([decode(first), decode(second)]))


def test_a_part_that_cannot_be_read_is_told_with_its_size():
    first, second = written(0, 16_000, "WAV"), written(1, 16_000, "WAV")[:40]
    blocks, samples = open_audio(io.BytesIO(first + second), "a", AudioConfig()).blocks(), []
    with pytest.raises(TruncatedError, match="last 40 bytes were not read"):
        samples.extend(blocks)
    assert sum(map(len, samples)) == 16_000


@pytest.mark.parametrize("between", [b"", b"LIST\x04\0\0\0INFO"])
def test_all_chunks_of_audio_are_read_in_order(between):
    first, second = written(0, 16_000, "WAV"), written(1, 16_000, "WAV", 2.0)
    data = first + between + second[36:]
    np.testing.assert_array_equal(decode(data), np.concatenate([decode(first), decode(second)]))


KINDS = {
    "FLAC": (Kind("FLAC", ":PCM_16", 16_000), 0), "AIFF": (Kind("AIFF", ":PCM_16", 16_000), 0),
    "CAF": (Kind("CAF", ":PCM_16", 16_000), 0), "AU": (Kind("AU", ":PCM_16", 16_000), 0),
    "WavPack": (Kind("wv", "wavpack", 16_000), 0), "TTA": (Kind("tta", "tta", 16_000), 0),
    "MP4": (Kind("mp4", "aac", 16_000), 0), "FLV": (Kind("flv", "aac", 44_100), 0.05),
    "WMA": (Kind("asf", "wmav2", 44_100), 0.1), "Matroska": (Kind("matroska", "flac", 16_000), 0),
    "Opus": (Kind("opus", "libopus", 48_000), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_second_recording_that_no_header_tells_of_is_read(name):
    kind, padding_s = KINDS[name]
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 5 * kind.rate_hz)).astype(np.float32)
    data = make_file(kind, noise[:, : 2 * kind.rate_hz]) + make_file(kind, noise[:, 2 * kind.rate_hz :])
    assert decode(data).size / 16_000 == pytest.approx(5, abs=0.005 + 2 * padding_s)


@pytest.mark.parametrize(("first", "second"), [("FLAC", "FLAC"), ("WAV", "FLAC"), ("FLAC", "WAV"), ("AIFF", "AIFF")])
def test_rate_and_channels_of_the_second_may_be_others(first, second):
    parts = [written(0, 16_000, first), written(1, 44_100, second, 2.0, num_channels=2)]
    np.testing.assert_allclose(decode(b"".join(parts)), np.concatenate([decode(part) for part in parts]), atol=1e-6)


def test_channels_that_only_a_later_recording_has_are_read():
    data = written(0, 16_000, "FLAC") + written(1, 16_000, "FLAC", 2.0, num_channels=2)
    stream = open_audio(io.BytesIO(data), "a", AudioConfig(channels="each"))
    found = [list(channel.pieces) for channel in stream.channels()]
    assert [sum(isinstance(piece, Gap) for piece in pieces) for pieces in found] == [0, 1]
    assert stream.report().num_transcripts == 2


def test_what_stands_behind_a_recording_and_is_none_does_not_matter():
    data = written(0, 16_000, "FLAC")
    np.testing.assert_array_equal(decode(data + bytes(10_000) + b"TAG" + bytes(125)), decode(data))


def test_a_decoder_does_not_hold_gigabytes_of_zeros_behind_a_recording(tmp_path):
    (tmp_path / "a").write_bytes(written(0, 16_000, "FLAC"))
    os.truncate(tmp_path / "a", 2**31)
    with (tmp_path / "a").open("rb") as file:
        source = Source(file, "a")
        end_before_next(source)
        while source.read(2**20):
            pass
    assert source.num_bytes == source.whole_bytes < 2**27


def test_chained_streams_of_one_number_are_read_one_behind_the_other():
    parts = [
        make_file(Kind("opus", "libopus", options=(("serial_offset", "7"),)), NOISE[:, :n]) for n in (90_000, 60_000)
    ]
    assert decode(b"".join(parts)).size == sum(decode(part).size for part in parts)


OTHER_KINDS = {
    "WAV": Kind("wav", "pcm_s16le", 16_000), "FLAC": Kind("flac", "flac", 16_000), "MP4": Kind("mp4", "aac", 16_000),
    "Matroska": Kind("matroska", "flac", 16_000), "Opus": Kind("opus", "libopus"), "ADTS": Kind("adts", "aac", 16_000),
    "MP3": Kind("mp3", "libmp3lame", 16_000), "MPEG-TS": Kind("mpegts", "mp2", 16_000),
}  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("WAV", "MP3"), ("WAV", "MP4"), ("WAV", "ADTS"), ("FLAC", "MP3"), ("FLAC", "MP4"), ("MP3", "WAV"),
        ("MP3", "Opus"), ("ADTS", "MP3"), ("Opus", "WAV"), ("Opus", "MP3"), ("Matroska", "MP4"), ("MPEG-TS", "MP4"),
    ],
)  # fmt: skip
def test_a_recording_behind_one_of_another_kind_is_read(first, second):
    kinds = OTHER_KINDS[first], OTHER_KINDS[second]
    noise = [np.random.default_rng(0).uniform(-0.3, 0.3, (1, 2 * kind.rate_hz)).astype(np.float32) for kind in kinds]
    parts = [make_file(kind, samples) for kind, samples in zip(kinds, noise, strict=True)]
    assert decode(b"".join(parts)).size == pytest.approx(sum(decode(part).size for part in parts), abs=576)


def test_recordings_behind_one_of_another_kind_are_split_again():
    parts = [
        make_file(OTHER_KINDS["WAV"], NOISE),
        *[make_file(OTHER_KINDS["Opus"], NOISE[:, :n]) for n in (90_000, 60_000)],
    ]
    assert decode(b"".join(parts)).size == pytest.approx(sum(decode(part).size for part in parts), abs=2)


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)])
@pytest.mark.parametrize("states_length", [True, False])
def test_padding_at_the_joint_of_mp3_files_is_left_out_where_the_second_tells_of_it(tag, states_length):
    options = () if states_length else (("write_xing", "0"),)
    first, second = Kind("mp3", "libmp3lame", 16_000, options=options), OTHER_KINDS["MP3"]
    clicks = np.zeros((1, 32_000), np.float32)
    clicks[:, 16_000:16_160] = 0.5
    found = decode(make_file(first, clicks) + tag + make_file(second, clicks))
    heard = np.flatnonzero(np.abs(found) > 0.1)
    length = 32_000 if states_length else 32_000 + 576  # its last frame is filled up
    assert heard[heard > 20_000][0] == pytest.approx(length + 16_000, abs=600 - 550 * states_length)


def test_what_looks_like_a_tag_behind_the_audio_begins_no_recording():
    data = written(0, 16_000, "AIFF") + b"ID3 \0\0\0\x20ID3\x04\0\0\0\0\0\x10" + bytes(22)
    np.testing.assert_array_equal(decode(data), decode(written(0, 16_000, "AIFF")))


SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 32_000).astype(np.int16)
ALL_ONES = b"\xff" * 8


def written_as(kind):
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, 16_000, format=kind)
    return file.getvalue()


def patched(data, *patches):
    for offset, value in patches:
        data = data[:offset] + value + data[offset + len(value) :]
    return data


W64, CAF, AIFF = written_as("W64"), written_as("CAF"), written_as("AIFF")
NO_LENGTH = ALL_ONES[1:] + b"\x7f"
W64_DATA = W64.index(b"data\xf3\xac\xd3\x11") + 16
CAF_DATA = CAF.index(b"data") + 4
AIFF_FRAMES, AIFF_DATA = AIFF.index(b"COMM") + 10, AIFF.index(b"SSND") + 4


@pytest.mark.parametrize(
    "data",
    [
        patched(W64, (16, ALL_ONES), (W64_DATA, NO_LENGTH)), patched(W64, (16, bytes(8)), (W64_DATA, bytes(8))),
        patched(CAF, (CAF_DATA, bytes(8))), patched(CAF, (CAF_DATA, ALL_ONES)),
        patched(AIFF, (4, bytes(4)), (AIFF_FRAMES, bytes(4)), (AIFF_DATA, bytes(4))),
        patched(AIFF, (4, b"\x7f\0\0\x50"), (AIFF_FRAMES, b"\x3f\x80\0\0"), (AIFF_DATA, b"\x7f\0\0\x08")),
    ],
)  # fmt: skip
def test_a_length_that_its_writer_did_not_know_hides_nothing(data):
    stream = open_audio(io.BytesIO(data), "a", AudioConfig())
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks())), SAMPLES / 32768)
    assert stream.report().declared_s is None


@pytest.mark.parametrize("whole", [W64, CAF, AIFF])
def test_a_length_that_is_true_stays(whole):
    stream = open_audio(io.BytesIO(whole), "a", AudioConfig())
    assert sum(map(len, stream.blocks())) == SAMPLES.size
    assert stream.report().declared_s == pytest.approx(2.0)


def test_a_spliced_file_is_read_across_its_pieces():
    file = Spliced(Source(io.BytesIO(b"0123456789"), "a"), [b"ab", (2, 4), Repeated(byte=b"-", num_bytes=2), (8, 10)])
    assert file.read(100) == b"ab23--89"
    file.seek(1)
    assert [file.read(2), file.tell(), file.read(2), file.read(9), file.read(1)] == [b"b2", 3, b"3-", b"-89", b""]


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body


def wav_with_list(kind, num_bits, *inner):
    form = struct.pack("<HHIIHH", kind, 1, 16_000, 2000 * num_bits, num_bits // 8, num_bits)
    body = b"WAVE" + chunk(b"fmt ", form) + chunk(b"fact", bytes(4)) + chunk(b"LIST", b"wavl" + b"".join(inner))
    return chunk(b"RIFF", body + chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"some")))


SILENCE = chunk(b"slnt", struct.pack("<I", 8000))


@pytest.mark.parametrize(("kind", "num_bits", "silence"), [(1, 16, b"\0\0"), (1, 8, b"\x80"), (7, 8, b"\xff")])
def test_a_list_of_audio_and_silence_is_read_in_order(kind, num_bits, silence):
    parts = [part.tobytes() for part in np.split(SAMPLES.view(np.uint8)[: 4000 * num_bits], 2)]
    data = wav_with_list(kind, num_bits, SILENCE, chunk(b"data", parts[0]), SILENCE, chunk(b"data", parts[1]))
    plain = wav_with_list(kind, num_bits).split(b"LIST")[0] + chunk(
        b"data", silence * 8000 + (silence * 8000).join(parts)
    )
    found, right = (np.concatenate(list(open_audio(io.BytesIO(d), "a", AudioConfig()).blocks())) for d in (data, plain))
    np.testing.assert_array_equal(found, right)
    assert found.size == 32_000 + 2 * 8000


def test_a_list_with_one_chunk_is_read_and_its_length_stated():
    stream = open_audio(io.BytesIO(wav_with_list(1, 16, chunk(b"data", SAMPLES.tobytes()))), "a", AudioConfig())
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks())), SAMPLES / 32768)
    assert stream.report().declared_s == 2.0


def test_a_list_that_is_cut_off_is_told():
    data = wav_with_list(1, 16, SILENCE, chunk(b"data", SAMPLES.tobytes()))
    with pytest.raises(TruncatedError, match=r"says 2\.50 s, but only 1\.5"):
        list(open_audio(io.BytesIO(data[:32_000]), "a", AudioConfig()).blocks())
