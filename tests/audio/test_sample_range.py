"""Samples of another sign and off zero are brought around zero, and the report says so."""

import io
import struct

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio

RATE_HZ = 16_000
TONE = 0.4 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE_HZ) / RATE_HZ) * np.linspace(0.02, 1, 3 * RATE_HZ)


def read(data, block_values):
    stream = open_audio(io.BytesIO(data), "a", AudioConfig(block_values=block_values))
    return np.concatenate(list(stream.blocks())), stream.report().sample_correction


def wav_of_bytes(samples):
    form = struct.pack("<HHIIHH", 1, 1, RATE_HZ, RATE_HZ, 1, 8)
    return b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt \x10\0\0\0" + form + (
        b"data" + struct.pack("<I", len(samples)) + samples
    )  # fmt: skip


@pytest.mark.parametrize("block_values", [1000, 2**18])
@pytest.mark.parametrize("num_silent", [0, 5 * RATE_HZ // 2])
def test_eight_bits_with_a_sign_are_read_as_that_also_behind_silence(block_values, num_silent):
    samples = np.concatenate([np.zeros(num_silent), np.rint(TONE * 127)]).astype(np.int8)
    found, correction = read(wav_of_bytes(samples.tobytes()), block_values)
    np.testing.assert_array_equal(found, samples / 128)
    assert correction == "8 bits with the other sign"


@pytest.mark.parametrize("peak", [0.02, 0.4, 1.0, 4.0])
def test_eight_bits_without_a_sign_are_left_alone_however_loud(peak):
    samples = np.clip(np.rint(TONE / 0.4 * peak * 127), -128, 127)
    found, correction = read(wav_of_bytes((samples + 128).astype(np.uint8).tobytes()), 2**18)
    np.testing.assert_array_equal(found, samples / 128)
    assert correction is None


@pytest.mark.parametrize("block_values", [1000, 2**18])
def test_a_constant_offset_is_taken_out_of_each_channel(block_values):
    file = io.BytesIO()
    silence = np.zeros((RATE_HZ // 3, 2))
    soundfile.write(file, np.concatenate([silence, np.stack([TONE, TONE + 0.25], 1)]), RATE_HZ, format="FLAC")
    found, correction = read(file.getvalue(), block_values)
    np.testing.assert_allclose(found, np.concatenate([silence[:, 0], TONE]), atol=2e-4)
    assert correction == "offset of 0.000, 0.250"


@pytest.mark.parametrize("offset", [0.005, 0.0])
def test_what_is_hardly_off_zero_or_swings_slowly_stays_as_it_is(offset):
    swinging = TONE + offset + 0.2 * np.sin(2 * np.pi * 2 * np.arange(TONE.size) / RATE_HZ)
    file = io.BytesIO()
    soundfile.write(file, swinging, RATE_HZ, format="WAV", subtype="FLOAT")
    found, correction = read(file.getvalue(), 2**18)
    np.testing.assert_array_equal(found, swinging.astype(np.float32))
    assert correction is None


@pytest.mark.parametrize("block_values", [1000, 2**18])
def test_the_loudest_sample_is_told_whatever_the_blocks(block_values):
    file = io.BytesIO()
    soundfile.write(file, TONE / np.abs(TONE).max() / 10, RATE_HZ, format="WAV", subtype="FLOAT")
    stream = open_audio(io.BytesIO(file.getvalue()), "a", AudioConfig(block_values=block_values))
    assert sum(map(len, stream.blocks())) == TONE.size
    assert stream.report().peak_dbfs == pytest.approx(-20, abs=1e-4)


def test_units_of_integers_are_told():
    file = io.BytesIO()
    soundfile.write(file, TONE * 32_768, RATE_HZ, format="WAV", subtype="FLOAT")
    assert read(file.getvalue(), 2**18)[1] == "units of 16 bits"
