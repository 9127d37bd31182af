import subprocess

import numpy as np
import pytest
import soundfile

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ConfigError
from dgasr.training.batches import WaveformStore


def write(path, num_samples, rate_hz=16_000):
    soundfile.write(path, 0.1 * np.random.default_rng(num_samples).standard_normal(num_samples), rate_hz)
    return str(path)


def test_training_and_transcription_read_the_same_samples(shared_data):
    for name in ("sonnet001.mp3", "sonnet001.mp4", "sonnet001.ogg"):
        path = shared_data / "formats" / name
        with path.open("rb") as file:
            expected = np.concatenate(list(open_audio(file, name, AudioConfig()).blocks()))
        assert np.array_equal(WaveformStore().read(str(path)), expected)


def test_a_channel_is_read_alone(tmp_path):
    stereo = np.stack([np.full(1000, 0.5), np.full(1000, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16_000)
    store = WaveformStore()
    found = [store.read(str(tmp_path / "a.wav"), AudioConfig(channels=channel))[0] for channel in (0, 1)]
    assert found == [0.5, -0.25]


def test_a_mp3_of_variable_rate_has_the_length_that_it_plays(tmp_path):
    source = write(tmp_path / "a.wav", 160_000)
    path = tmp_path / "a.mp3"
    command = ["ffmpeg", "-v", "error", "-i", source, "-c:a", "libmp3lame", "-q:a", "5", str(path)]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("ffmpeg is not installed")
    assert abs(WaveformStore().read(str(path)).size - 160_000) <= 1152


def test_the_store_never_holds_more_than_it_may_and_keeps_what_was_used_last(tmp_path):
    store = WaveformStore(max_bytes=4 * 2_500)
    first, second, third, *rest = (write(tmp_path / f"{index}.wav", 1_000) for index in range(5))
    kept = store.read(first)
    store.read(second)
    assert store.read(first) is kept
    store.read(third)  # drops the second
    assert store.read(first) is kept
    for path in (*rest, write(tmp_path / "long.wav", 9_000)):  # the last one is read and not kept
        assert store.read(path).size in (1_000, 9_000)
        assert store.num_bytes == 4 * 2_000


def test_audio_that_ends_early_is_named(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(50_000), 16_000)
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ConfigError, match=r"a\.flac: the manifest names it, but it cannot be read to its end"):
        WaveformStore().read(str(path))
