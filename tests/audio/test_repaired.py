"""Files whose writers did not know their lengths are read whole, and state none."""

import io

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.audio.repaired import Spliced
from dgasr.audio.source import Source

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
    file = Spliced(Source(io.BytesIO(b"0123456789"), "a"), [b"ab", (2, 4), b"", (8, 10)])
    assert file.read(100) == b"ab2389"
    file.seek(1)
    assert [file.read(2), file.tell(), file.read(2), file.read(9), file.read(1)] == [b"b2", 3, b"38", b"9", b""]
