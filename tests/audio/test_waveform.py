"""What is said on any channel stays audible, whatever the other channels do; the same sound has the same digest."""

import numpy as np
import pytest

from dgasr.audio.waveform import Downmix, WaveformDigest

RATE_HZ = 8000


def noise(duration_s, seed, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(round(duration_s * RATE_HZ))).astype(np.float32)


def mixed(channels, block_frames=3000):
    downmix = Downmix(channels.shape[1], RATE_HZ)
    parts = [
        mono
        for start in range(0, len(channels), block_frames)
        for mono in downmix.mix(channels[start : start + block_frames])
    ]
    return np.concatenate([*parts, *downmix.finish()]), downmix


def test_channels_that_agree_are_averaged():
    voice = noise(3.5, 0)
    stereo = np.stack([voice, 0.5 * voice], axis=1)
    found, downmix = mixed(stereo)
    np.testing.assert_array_equal(found, stereo.mean(axis=1, dtype=np.float32))
    assert (downmix.cancelled_s, downmix.channels_differ) == (0.0, False)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.3])
def test_an_inverted_channel_does_not_cancel_the_other(share):
    voice = noise(3.5, 0)
    found, downmix = mixed(np.stack([voice, -share * voice], axis=1))
    np.testing.assert_allclose(found, (1 + share) / 2 * voice, atol=1e-6)
    assert downmix.cancelled_s == pytest.approx(0.0 if share < 0.4 else 3.5, abs=0.5)


def test_a_quiet_inverted_channel_does_not_either():
    voice = noise(3.5, 0, level=1e-4)
    np.testing.assert_allclose(mixed(np.stack([voice, -voice], axis=1))[0], voice, atol=1e-9)


def test_what_is_inverted_beside_noise_stays_and_the_noise_grows_no_louder():
    voice = noise(3.5, 0)
    stereo = np.stack([voice + noise(3.5, 1), -voice + noise(3.5, 2)], axis=1)
    found = mixed(stereo)[0]
    assert found @ voice / (voice @ voice) == pytest.approx(1.0, abs=0.05)


def test_of_many_channels_those_that_are_heard_are_averaged():
    channels = np.zeros((3 * RATE_HZ, 16), np.float32)
    channels[:, 5] = noise(3.0, 0)
    np.testing.assert_array_equal(mixed(channels)[0], channels[:, 5])
    channels[:, 9] = noise(3.0, 1)
    found, downmix = mixed(channels)
    np.testing.assert_allclose(found, channels[:, [5, 9]].mean(axis=1), atol=1e-6)
    assert (downmix.cancelled_s, downmix.channels_differ) == (0.0, True)


@pytest.mark.parametrize("delay", [40, 56, 240])
def test_of_a_channel_and_its_echo_one_is_taken_and_no_second_person_is_told(delay):
    voice = noise(6.0, 0)
    found, downmix = mixed(np.stack([voice[delay:], 0.9 * voice[:-delay]], axis=1))
    np.testing.assert_array_equal(found, voice[delay:])
    assert not downmix.channels_differ


def test_the_mix_does_not_depend_on_the_blocks():
    voice, other = noise(6.3, 0), noise(6.3, 1)
    other[: 2 * RATE_HZ] = -voice[: 2 * RATE_HZ]
    stereo = np.stack([voice, other], axis=1)
    expected = mixed(stereo, len(stereo))[0]
    for block_frames in (1, 777, RATE_HZ, 20_000):
        np.testing.assert_array_equal(mixed(stereo, block_frames)[0], expected)


def test_a_constant_offset_of_opposite_sign_cancels_nothing():
    voice = noise(2.0, 0)
    found, downmix = mixed(np.stack([voice + 0.3, voice - 0.3], axis=1))
    np.testing.assert_allclose(found, voice, atol=1e-6)
    assert downmix.cancelled_s == 0.0


@pytest.mark.parametrize("at_once", [True, False])
def test_two_people_on_two_channels_are_noticed(at_once):
    first, second = noise(8.0, 0), noise(8.0, 1)
    if not at_once:
        first[4 * RATE_HZ :], second[: 4 * RATE_HZ] = 0, 0
    assert mixed(np.stack([first, second], axis=1))[1].channels_differ


def test_one_person_beside_a_silent_channel_is_no_second_person():
    assert not mixed(np.stack([noise(8.0, 0), noise(8.0, 1, level=0.001)], axis=1))[1].channels_differ


WAVEFORM = (0.2 * np.random.default_rng(0).standard_normal(5000)).astype(np.float32)


def digest_of(*blocks: np.ndarray) -> str:
    digest = WaveformDigest()
    assert sum(block.size for block in digest.passing(iter(blocks))) == sum(block.size for block in blocks)
    return digest.hexdigest()


def test_how_audio_is_cut_into_blocks_does_not_matter():
    assert digest_of(WAVEFORM) == digest_of(*np.split(WAVEFORM, [1, 700, 4999]))


def test_what_sixteen_bits_cannot_hold_does_not_matter():
    samples = np.round(WAVEFORM * 32768) / 32768
    assert digest_of(samples) == digest_of(samples + 1e-7)
    assert digest_of(samples) != digest_of(samples + 1e-4)


def test_samples_beyond_full_scale_do_not_wrap_around():
    assert digest_of(np.array([1.0, -1.5])) == digest_of(np.array([2.0, -1.0]))
