import numpy as np

from dgasr.audio.waveform import WaveformDigest

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
