"""Channels and tracks that are transcribed each by itself: the waveform of each is its own, whole, and in order."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, Limits, open_audio
from dgasr.errors import (
    ConfigError,
    NoSuchChannelError,
    NoSuchTrackError,
    TooLargeError,
    TooLongError,
    TooSlowError,
    TruncatedError,
)
from dgasr.records import Gap
from tests.audio.test_stream import tone, write_tracks

RATE_HZ = 16_000


def noise(duration_s, num_channels, seed=0):
    shape = (round(duration_s * RATE_HZ), num_channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def written(samples, kind="WAV", subtype="FLOAT", rate_hz=RATE_HZ):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


def read(data, **settings):
    """Read all channels: place → samples with NaN for gaps; the report and messages of what is missing."""
    stream, found, messages = open_audio(io.BytesIO(data), "a", AudioConfig(**settings)), {}, []
    for channel in stream.channels():
        pieces = found[channel.audio_track, channel.channel] = [np.zeros(0)]
        try:
            for piece in channel.pieces:
                pieces.append(np.full(piece.num_samples, np.nan) if isinstance(piece, Gap) else piece)
        except TruncatedError as error:
            messages.append(str(error))
    return {place: np.concatenate(pieces) for place, pieces in found.items()}, stream.report(), messages


@pytest.mark.parametrize("block_values", [1000, 2**18])
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_each_channel_is_read_by_itself(kind, block_values):
    samples = np.round(noise(2.0, 3) * 2**15) / 2**15
    data = written(samples, kind, "PCM_16")
    found, report, messages = read(data, channels="each", block_values=block_values)
    assert (list(found), messages) == ([(0, 0), (0, 1), (0, 2)], [])
    for channel in range(3):
        np.testing.assert_array_equal(found[0, channel], samples[:, channel])
        np.testing.assert_array_equal(read(data, channels=channel)[0][0, channel], samples[:, channel])
    assert (report.num_transcripts, report.decoded_samples, report.channels_differ) == (3, len(samples), None)


def test_a_channel_or_track_that_is_not_there_is_named():
    data = written(noise(1.0, 2))
    with pytest.raises(NoSuchChannelError, match="2 channels, counted from 0, and --channels 2"):
        read(data, channels=2)
    with pytest.raises(NoSuchTrackError, match="one audio track"):
        read(data, track=1)


@pytest.mark.parametrize("settings", [{"channels": "left"}, {"channels": -1}, {"track": "loud"}, {"track": -2}])
def test_channels_and_tracks_that_none_has_are_refused(settings):
    with pytest.raises(ConfigError, match="or a number from 0"):
        AudioConfig(**settings)


@pytest.mark.parametrize("block_values", [1000, 2**18])
def test_where_a_joined_recording_lacks_the_channel_there_is_one_gap(block_values):
    first, second = noise(2.0, 1), noise(3.0, 2, seed=1)
    settings = {"channels": "each", "block_values": block_values}
    found, _, _ = read(written(first) + written(second), **settings)
    np.testing.assert_array_equal(found[0, 0], np.concatenate([first[:, 0], second[:, 0]]))
    np.testing.assert_array_equal(found[0, 1], np.concatenate([np.full(len(first), np.nan), second[:, 1]]))
    stream = open_audio(io.BytesIO(written(first) + written(second)), "a", AudioConfig(**settings))
    counted = [sum(isinstance(piece, Gap) for piece in channel.pieces) for channel in stream.channels()]
    assert counted == [0, 1]


def test_each_track_is_read_by_itself_and_one_of_no_use_spoils_no_other(tmp_path):
    write_tracks(tmp_path / "a.mkv", [(tone(2.0, 48_000), 0.0), (tone(3.0, 48_000, 880.0), 0.0), (np.zeros(0), 0.0)])
    data = (tmp_path / "a.mkv").read_bytes()
    found, report, messages = read(data, track="each")
    assert list(found) == [(0, 0), (1, 0), (2, 0)]
    assert [round(samples.size / RATE_HZ, 1) for samples in found.values()] == [2.0, 3.0, 0.0]
    assert (report.audio_track, report.num_transcripts) == (None, 3)
    assert report.decoded_samples == found[1, 0].size
    assert len(messages) == 1
    assert "audio track 2; the others are kept" in messages[0]
    alone, report, _ = read(data, track=1)
    np.testing.assert_array_equal(alone[1, 0], found[1, 0])
    assert report.audio_track == 1
    with pytest.raises(NoSuchTrackError, match="3 audio tracks"):
        read(data, track=3)


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(max_duration_s=1.5), TooLongError), (Limits(max_decoded_bytes=100_000), TooLargeError),
        (Limits(max_seconds_per_file_wall=1e-9), TooSlowError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", ["mix", "each"])
def test_what_takes_more_than_its_limits_is_refused_by_their_name(limits, error, channels):
    with pytest.raises(error, match="max_"):
        read(written(noise(2.0, 2), "FLAC", "PCM_16"), channels=channels, limits=limits)


def test_limits_that_no_file_keeps_are_refused():
    with pytest.raises(ConfigError, match="max_duration_s=0"):
        Limits(max_duration_s=0)
    assert replace(Limits(), min_bytes_per_s=0).min_bytes_per_s == 0
