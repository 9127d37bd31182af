"""A file that is several recordings is read to its end."""

import io

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.audio.source import Source, split_joined
from dgasr.errors import TruncatedError


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


def test_a_second_chunk_of_audio_is_told_with_its_size():
    data = written(0, 16_000, "WAV")
    blocks = open_audio(io.BytesIO(data + data[36:]), "a", AudioConfig()).blocks()
    with pytest.raises(TruncatedError, match="32000 bytes were not read"):
        list(blocks)
