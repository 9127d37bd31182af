"""Every container becomes the same mono waveform at 16 kHz."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import soxr

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ObjectError, TransientError
from dgasr.records import SAMPLE_RATE_HZ

RATE_HZ = 44_100

VARIABLE_BIT_RATE = {"flags": "+qscale", "global_quality": "472"}
"""What makes libmp3lame spend what each frame needs."""


def tone(duration_s: float, sample_rate_hz: int = RATE_HZ, frequency_hz: float = 440.0) -> np.ndarray:
    time_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    return (0.4 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def decode(path, config=None):
    with open(path, "rb") as file:
        stream = open_audio(file, path.name, config or AudioConfig())
        waveform = np.concatenate(list(stream.blocks()))
    report = stream.report()
    assert report.decoded_samples == waveform.size
    return waveform, report


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.au", "a.caf", "a.w64"])
def test_what_libsndfile_writes_is_read(tmp_path, name):
    soundfile.write(tmp_path / name, tone(2.0), RATE_HZ)
    waveform, report = decode(tmp_path / name)
    assert (report.source_sample_rate_hz, report.num_channels) == (RATE_HZ, 1)
    np.testing.assert_allclose(waveform[1000:-1000], tone(2.0, SAMPLE_RATE_HZ)[1000:-1000], atol=0.02)


@pytest.mark.parametrize(
    ("name", "codec", "slack_s"),
    [
        ("a.mp3", "libmp3lame", 0.03),
        ("a.m4a", "aac", 0.03),
        ("a.aac", "aac", 0.05),
        ("a.ac3", "ac3", 0.05),
        ("a.webm", "libopus", 0.01),
        ("a.opus", "libopus", 0.01),
    ],
)
def test_what_only_libav_reads_right_is_read_with_the_right_duration(tmp_path, encode, name, codec, slack_s):
    rate_hz = 48_000
    encode(tmp_path / name, np.stack([tone(2.0, rate_hz)] * 2), rate_hz, codec)
    waveform, report = decode(tmp_path / name)
    assert waveform.size / SAMPLE_RATE_HZ == pytest.approx(2.0, abs=slack_s)
    assert (report.source_sample_rate_hz, report.num_channels) == (rate_hz, 2)
    assert np.abs(waveform[4000:-4000]).max() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("container", ["wav", "aiff", "flac", "ogg", "mp3", "aac", "mp4", "webm"])
def test_eight_containers_of_one_reading_have_its_duration(shared_data, container):
    waveform, _ = decode(shared_data / "formats" / f"sonnet001.{container}")
    assert waveform.size / SAMPLE_RATE_HZ == pytest.approx(8.995, abs=0.02)


@pytest.mark.parametrize("name", ["jfk.flac", "sonnet001.mp3", "sense_and_sensibility-0870.wav"])
def test_speech_agrees_with_its_header(shared_data, name):
    waveform, report = decode(shared_data / "speech" / name)
    assert waveform.size / SAMPLE_RATE_HZ == pytest.approx(report.declared_s, abs=0.001)


def test_a_variable_bit_rate_mp3_without_a_frame_count_is_read_to_its_end(tmp_path, encode):
    # The guess from its first frames is far too long: silence is cheap.
    waveform = np.concatenate([np.zeros(10 * RATE_HZ), 0.3 * np.random.default_rng(0).standard_normal(10 * RATE_HZ)])
    encode(tmp_path / "a.mp3", waveform[None], RATE_HZ, "libmp3lame", VARIABLE_BIT_RATE, write_xing="0")
    with av.open(str(tmp_path / "a.mp3")) as guessed:
        assert guessed.duration / av.time_base > 30
    decoded, report = decode(tmp_path / "a.mp3")
    assert report.declared_s is None
    assert decoded.size / SAMPLE_RATE_HZ == pytest.approx(20.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "codec_options"),
    [
        ("a.flac", "flac", RATE_HZ, {}),
        ("a.mp3", "libmp3lame", RATE_HZ, VARIABLE_BIT_RATE),
        ("a.m4a", "aac", RATE_HZ, {}),
        ("a.opus", "libopus", 48_000, {}),
    ],
)
def test_clicks_do_not_drift(tmp_path, encode, name, codec, rate_hz, codec_options):
    places_s, click = range(5, 45, 10), tone(0.005, rate_hz, 1000.0)
    waveform = np.zeros(50 * rate_hz, dtype=np.float32)
    for place_s in places_s:
        waveform[place_s * rate_hz :][: click.size] = click
    encode(tmp_path / name, waveform[None], rate_hz, codec, codec_options)
    decoded, _ = decode(tmp_path / name)
    late_ms = []
    for place_s in places_s:
        power = decoded[(place_s - 1) * SAMPLE_RATE_HZ : (place_s + 1) * SAMPLE_RATE_HZ] ** 2
        centre = (np.arange(power.size) * power).sum() / power.sum()
        late_ms.append((centre / SAMPLE_RATE_HZ - 1.0025) * 1000)
    assert np.abs(late_ms).max() < 25  # what an encoder puts in front
    assert np.ptp(late_ms) < 0.1


def test_the_extension_does_not_matter(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(1.0), RATE_HZ, format="FLAC")
    assert decode(tmp_path / "a.mp3")[1].container == "flac"


def test_channels_are_averaged(tmp_path):
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, SAMPLE_RATE_HZ)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(decode(tmp_path / "a.wav")[0], (left + right) / 2, atol=1e-7)


def test_192_khz_becomes_16_khz(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, 192_000), 192_000)
    assert decode(tmp_path / "a.wav")[0].size == SAMPLE_RATE_HZ


def test_the_rate_of_the_project_is_passed_through_exactly(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(decode(tmp_path / "a.wav")[0], tone(1.0, SAMPLE_RATE_HZ))


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_the_waveform_does_not_depend_on_the_blocks(tmp_path, name):
    soundfile.write(tmp_path / name, tone(3.0), RATE_HZ)
    whole, _ = decode(tmp_path / name, AudioConfig(block_values=2**20))
    pieces, _ = decode(tmp_path / name, AudioConfig(block_values=1000))
    np.testing.assert_array_equal(whole, pieces)


def test_resampling_in_blocks_equals_resampling_at_once(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(3.0), RATE_HZ, subtype="FLOAT")
    expected = soxr.resample(tone(3.0), RATE_HZ, SAMPLE_RATE_HZ)
    np.testing.assert_allclose(decode(tmp_path / "a.wav", AudioConfig(block_values=1000))[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_blocks_stay_small_however_long_the_recording(tmp_path, name):
    soundfile.write(tmp_path / name, np.zeros((200_000, 4)), SAMPLE_RATE_HZ)
    with open(tmp_path / name, "rb") as file:
        sizes = [block.size for block in open_audio(file, name, AudioConfig(block_values=40_000)).blocks()]
    assert sum(sizes) == 200_000
    assert max(sizes) < 2 * 10_000


@pytest.mark.parametrize("error", [TransientError("S3 does not answer"), ObjectError("cannot be used")])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_an_error_of_the_storage_is_not_taken_for_the_end_of_the_audio(tmp_path, name, error):
    soundfile.write(tmp_path / name, np.random.default_rng(0).uniform(-0.5, 0.5, 400_000), SAMPLE_RATE_HZ)
    file = FailingFile((tmp_path / name).read_bytes(), error)
    stream = open_audio(file, name, AudioConfig(block_values=20_000))
    with pytest.raises(type(error), match=str(error)):
        list(stream.blocks())


class FailingFile(io.BytesIO):
    """A file whose second half cannot be read."""

    def __init__(self, data: bytes, error: Exception) -> None:
        super().__init__(data)
        self._limit = len(data) // 2
        self._error = error

    def read(self, size=-1):
        if self.tell() > self._limit:
            raise self._error
        return super().read(size)


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp3", "libmp3lame", {"write_xing": "0"}), ("a.mp3", "libmp3lame", {}), ("a.aac", "aac", {}),
        ("a.mp2", "mp2", {}), ("a.mkv", "aac", {}), ("a.mkv", "libmp3lame", {}), ("a.opus", "libopus", {}),
    ],
)  # fmt: skip
def test_sound_lies_where_it_was_before_it_was_encoded(tmp_path, encode, rate_hz, name, codec, options):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, rate_hz).astype(np.float32)
    sound = np.concatenate([np.zeros(rate_hz, np.float32), noise, np.zeros(rate_hz, np.float32)])
    encode(tmp_path / name, sound[None], rate_hz, codec, **options)
    waveform = decode(tmp_path / name)[0]
    heard = np.flatnonzero(np.abs(waveform) > 0.1)
    assert heard[0] / SAMPLE_RATE_HZ == pytest.approx(1.0, abs=0.01)
    assert heard[-1] / SAMPLE_RATE_HZ == pytest.approx(2.0, abs=0.01)


def write_tracks(path, tracks):
    """Write audio tracks into one container; each is a waveform at 48 kHz and when it begins, s."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=48_000, layout="mono") for _ in tracks]
        for stream, (waveform, start_s) in zip(streams, tracks, strict=True):
            for start in range(0, waveform.size - 1023, 1024):
                frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = (
                    48_000,
                    round(start_s * 48_000) + start,
                    Fraction(1, 48_000),
                )
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_of_several_tracks_the_one_with_sound_is_read(tmp_path, name):
    silence, sound = np.zeros(96_000, np.float32), tone(2.0, 48_000)
    write_tracks(tmp_path / name, [(silence, 0.0), (sound, 0.0), (silence, 0.0)])
    waveform, report = decode(tmp_path / name)
    assert np.abs(waveform).max() > 0.3
    assert (report.audio_track, report.num_audio_tracks) == (1, 3)


def test_of_tracks_that_all_sound_the_first_is_read(tmp_path):
    write_tracks(tmp_path / "a.mp4", [(tone(2.0, 48_000), 0.0), (tone(2.0, 48_000, 880.0), 0.0)])
    assert decode(tmp_path / "a.mp4")[1].audio_track == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_that_begins_late_lies_where_a_player_plays_it(tmp_path, name):
    write_tracks(tmp_path / name, [(np.zeros(48_000 * 5, np.float32), 0.0), (tone(2.0, 48_000), 2.5)])
    with (tmp_path / name).open("rb") as file:
        gap, *_ = open_audio(file, name, AudioConfig()).pieces()
    assert gap.num_samples == pytest.approx(2.5 * SAMPLE_RATE_HZ, abs=0.03 * SAMPLE_RATE_HZ)
    waveform = decode(tmp_path / name)[0]
    assert np.flatnonzero(np.abs(waveform) > 0.1)[0] / SAMPLE_RATE_HZ == pytest.approx(2.5, abs=0.03)
