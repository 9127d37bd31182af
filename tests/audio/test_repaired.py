"""Files whose writers did not know their lengths are read whole, and state none; lists of audio are read in order."""

import io
import struct

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.audio.repaired import Repeated, Spliced
from dgasr.audio.source import Source
from dgasr.errors import TruncatedError

NOISE = np.random.default_rng(0).integers(-9000, 9000, 32_000).astype(np.int16)
ALL_ONES = b"\xff" * 8


def written(kind):
    file = io.BytesIO()
    soundfile.write(file, NOISE, 16_000, format=kind)
    return file.getvalue()


def patched(data, *patches):
    for offset, value in patches:
        data = data[:offset] + value + data[offset + len(value) :]
    return data


W64, CAF, AIFF = written("W64"), written("CAF"), written("AIFF")
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
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks())), NOISE / 32768)
    assert stream.report().declared_s is None


@pytest.mark.parametrize("whole", [W64, CAF, AIFF])
def test_a_length_that_is_true_stays(whole):
    stream = open_audio(io.BytesIO(whole), "a", AudioConfig())
    assert sum(map(len, stream.blocks())) == NOISE.size
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
    parts = [part.tobytes() for part in np.split(NOISE.view(np.uint8)[: 4000 * num_bits], 2)]
    data = wav_with_list(kind, num_bits, SILENCE, chunk(b"data", parts[0]), SILENCE, chunk(b"data", parts[1]))
    plain = wav_with_list(kind, num_bits).split(b"LIST")[0] + chunk(
        b"data", silence * 8000 + (silence * 8000).join(parts)
    )
    found, right = (np.concatenate(list(open_audio(io.BytesIO(d), "a", AudioConfig()).blocks())) for d in (data, plain))
    np.testing.assert_array_equal(found, right)
    assert found.size == 32_000 + 2 * 8000


def test_a_list_with_one_chunk_is_read_and_its_length_stated():
    stream = open_audio(io.BytesIO(wav_with_list(1, 16, chunk(b"data", NOISE.tobytes()))), "a", AudioConfig())
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks())), NOISE / 32768)
    assert stream.report().declared_s == 2.0


def test_a_list_that_is_cut_off_is_told():
    data = wav_with_list(1, 16, SILENCE, chunk(b"data", NOISE.tobytes()))
    with pytest.raises(TruncatedError, match=r"says 2\.50 s, but only 1\.5"):
        list(open_audio(io.BytesIO(data[:32_000]), "a", AudioConfig()).blocks())
