"""Levels and pauses of a waveform. The speech model hears the same in any blocks and any process."""

import hashlib
import importlib.util
import itertools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.samples import MANIFEST
from dgasr.segmentation import SegmentationConfig, cut_at_silence, pauses
from dgasr.segmentation.pauses import (
    FRAME_SAMPLES,
    find_pauses,
    find_speech,
    frame_power,
    level_dbfs,
    load_network,
    pause_threshold_dbfs,
    weights_path,
    with_probabilities,
)


def test_power_is_that_of_each_frame_the_last_one_shorter():
    samples = np.tile(np.array([0.5, -0.5], dtype=np.float32), 200)
    np.testing.assert_allclose(frame_power(samples), [0.25, 0.25, 0.25])


def test_a_constant_offset_has_no_power():
    assert frame_power(np.full(320, 0.7, dtype=np.float32)).max() == pytest.approx(0.0, abs=1e-7)


def test_full_scale_is_zero_db():
    np.testing.assert_allclose(level_dbfs(np.ones(20)), 0.0, atol=1e-9)


def test_the_threshold_lies_between_background_and_speech():
    levels = np.concatenate([np.full(500, -60.0), np.full(500, -20.0)])
    assert pause_threshold_dbfs(levels, 0.3) == pytest.approx(-48.0)


def test_digital_silence_says_nothing_of_the_background():
    levels = np.concatenate([np.full(5000, -100.0), np.full(500, -60.0), np.full(500, -20.0)])
    assert pause_threshold_dbfs(levels, 0.3) == pytest.approx(-48.0)


def test_where_nothing_was_recorded_all_is_a_pause():
    levels = np.full(100, -100.0)
    assert find_pauses(levels, pause_threshold_dbfs(levels, 0.3)) == [(0, 100)]


def test_pauses_are_half_open_intervals():
    levels = np.concatenate([np.full(10, -60.0), np.full(20, -10.0), np.full(30, -60.0)])
    assert find_pauses(levels, -30.0) == [(0, 10), (30, 60)]


def test_a_click_does_not_end_a_pause():
    levels = np.full(60, -60.0)
    levels[30:35] = -10.0
    assert find_pauses(levels, -30.0) == [(0, 60)]


CONFIG = SegmentationConfig(method="speech")
WINDOW = 8 * SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Half a minute of read digits at 16 kHz, with silences between them."""
    return soundfile.read(MANIFEST.parent / "several_minutes_with_silences.ogg", dtype="float32")[0][:500_007]


def probabilities_of(*blocks: np.ndarray) -> np.ndarray:
    pairs = list(with_probabilities(blocks))
    np.testing.assert_array_equal(np.concatenate([samples for samples, _ in pairs]), np.concatenate(blocks))
    return np.concatenate([probabilities for _, probabilities in pairs])


def blocks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[start : start + size] for start in range(0, samples.size, size)]


def test_each_window_is_heard_after_the_others_with_64_samples_of_context(spoken):
    import onnxruntime

    plain = onnxruntime.InferenceSession(str(weights_path()), providers=["CPUExecutionProvider"])
    samples = spoken[: 300 * 512 + 100]
    padded = np.concatenate([np.zeros(64), samples, np.zeros(412)]).astype(np.float32)
    state, expected = np.zeros((2, 1, 128), dtype=np.float32), []
    for n in range(301):
        window = padded[n * 512 : n * 512 + 576]
        output, state = plain.run(None, {"input": window[None], "state": state, "sr": np.array(16_000)})
        expected.append(output.item())
    num_frames = -(-samples.size // FRAME_SAMPLES)
    by_frame = [expected[min((frame * 160 + 80) // 512, 300)] for frame in range(num_frames)]
    np.testing.assert_array_equal(probabilities_of(samples), np.float32(by_frame))


def test_the_whole_networks_of_the_wheel_agree(spoken):
    """The file for both rates is another export of the same network."""
    import onnxruntime

    both = onnxruntime.InferenceSession(str(weights_path().with_name("silero_vad.onnx")))
    state, context = np.zeros((2, 1, 128), dtype=np.float32), np.zeros(64, dtype=np.float32)
    found = probabilities_of(spoken[: 512 * 200])
    for n, window in enumerate(blocks_of(spoken[: 512 * 200], 512)):
        heard = np.concatenate([context, window])
        output, state = both.run(None, {"input": heard[None], "state": state, "sr": np.array(16_000)})
        context = heard[-64:]
        assert found[(n * 512 + 256) // 160] == pytest.approx(output.item(), abs=1e-5)


@pytest.mark.parametrize("size", [1_000, 2_560, 16_001, 250_000])
def test_probabilities_do_not_depend_on_the_blocks(spoken, size):
    whole = probabilities_of(spoken)
    np.testing.assert_array_equal(probabilities_of(*blocks_of(spoken, size)), whole)
    assert whole.size == -(-spoken.size // FRAME_SAMPLES)


def test_another_process_hears_the_same(spoken, tmp_path):
    np.save(tmp_path / "spoken.npy", spoken)
    program = (
        "import hashlib, sys, numpy\n"
        "from dgasr.segmentation.pauses import with_probabilities\n"
        "heard = [found.tobytes() for _, found in with_probabilities([numpy.load(sys.argv[1])])]\n"
        "print(hashlib.sha256(b''.join(heard)).hexdigest())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "spoken.npy")]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(probabilities_of(spoken).tobytes()).hexdigest()


def test_a_second_recording_is_heard_as_if_it_were_the_first(spoken):
    first = probabilities_of(spoken[:100_000])
    probabilities_of(np.random.default_rng(0).standard_normal(50_000).astype(np.float32))
    np.testing.assert_array_equal(probabilities_of(spoken[:100_000]), first)


def test_no_samples_have_no_probabilities():
    assert list(with_probabilities([])) == []
    assert list(with_probabilities([np.zeros(0, dtype=np.float32)])) == []


def test_people_are_told_from_noise_and_silence(spoken):
    noise = 0.1 * np.random.default_rng(0).standard_normal(160_000).astype(np.float32)
    assert probabilities_of(spoken).max() > 0.9
    assert probabilities_of(noise).max() < 0.3
    assert probabilities_of(np.zeros(160_000, dtype=np.float32)).max() < 0.3


def test_speech_begins_at_one_threshold_and_ends_at_the_other():
    likely = np.array([0.1, 0.4, 0.6, 0.4, 0.4, 0.1, 0.4, 0.4, 0.1])
    expected = [False, True, True, True, True, False, False, False, False]
    np.testing.assert_array_equal(find_speech(likely, 0.5, 0.3, is_speaking=False), expected)


def test_speech_that_has_begun_goes_on_until_it_ends():
    likely = np.array([0.4, 0.4, 0.1, 0.4, 0.1])
    np.testing.assert_array_equal(find_speech(likely, 0.5, 0.3, is_speaking=True), [True, True, False, False, False])
    assert not find_speech(likely, 0.5, 0.3, is_speaking=False).any()


def test_what_may_become_speech_beyond_the_last_frame_counts_as_speech():
    likely = np.array([0.1, 0.1, 0.4])
    np.testing.assert_array_equal(find_speech(likely, 0.5, 0.3, is_speaking=False), [False, False, True])


def test_thresholds_are_reached_at_equality():
    likely = np.array([0.1, 0.3, 0.5, 0.3, 0.1])
    np.testing.assert_array_equal(find_speech(likely, 0.5, 0.3, is_speaking=False), [False, True, True, True, False])


@pytest.mark.parametrize("window_s", [2, 8, 30])
@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 2_559, 2_560, 2_561, 300_007, 500_007])
def test_every_sample_is_covered_once(spoken, num_samples, window_s):
    position = 0
    for span, waveform in cut_at_silence([spoken[:num_samples]], window_s * SAMPLE_RATE_HZ, CONFIG):
        assert span.start_sample == position
        assert 0 < span.end_sample - span.start_sample <= window_s * SAMPLE_RATE_HZ
        np.testing.assert_array_equal(waveform, spoken[span.start_sample : span.end_sample])
        position = span.end_sample
    assert position == num_samples


@pytest.mark.parametrize("window_s", [2, 8, 30])
@pytest.mark.parametrize("seed", range(4))
def test_spans_do_not_depend_on_random_blocks_with_empty_ones_among_them(spoken, window_s, seed):
    generator = np.random.default_rng(seed)
    edges = [0, 0, *np.sort(generator.integers(0, spoken.size, 40)).tolist(), spoken.size]
    blocks = (spoken[start:end] for start, end in itertools.pairwise(edges))
    whole, parts = (
        [span for span, _ in cut_at_silence(source, window_s * SAMPLE_RATE_HZ, CONFIG)] for source in ([spoken], blocks)
    )
    assert parts == whole


def test_silences_between_people_are_segments_of_their_own(spoken):
    kinds = [span.kind for span, _ in cut_at_silence([spoken], WINDOW, CONFIG)]
    assert {"speech", "silence"} == set(kinds)


def test_noise_that_comes_and_goes_is_no_speech_if_it_lasts():
    """Loudness alone takes it for speech: it rises and falls."""
    generator = np.random.default_rng(0)
    swelling = np.sin(np.arange(20 * SAMPLE_RATE_HZ) * 2 * np.pi * 1.5 / SAMPLE_RATE_HZ) > 0
    bursts = (0.1 * swelling * generator.standard_normal(swelling.size)).astype(np.float32)
    found = {
        method: {span.kind for span, _ in cut_at_silence([bursts], WINDOW, SegmentationConfig(method=method))}
        for method in ("speech", "loudness")
    }
    assert found == {"speech": {"silence"}, "loudness": {"speech"}}


def test_memory_does_not_grow_with_the_recording(spoken):
    def peak_bytes(num_repeats: int) -> int:
        tracemalloc.start()
        for _ in cut_at_silence(itertools.repeat(spoken[:48_000], num_repeats), WINDOW, CONFIG):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(60) < 1.1 * peak_bytes(12)


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    find_spec = importlib.util.find_spec
    for module, package in (("onnxruntime", "onnxruntime"), ("silero_vad", "silero-vad")):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=module: None if name == gone else find_spec(name)
        )
        load_network.cache_clear()
        with pytest.raises(ConfigError, match=rf"{package} is not installed.*make setup.*--segmentation loudness"):
            list(cut_at_silence([np.zeros(10, dtype=np.float32)], WINDOW, CONFIG))


def test_loudness_needs_no_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    load_network.cache_clear()
    loudness = SegmentationConfig(method="loudness")
    assert list(cut_at_silence([np.zeros(10, dtype=np.float32)], WINDOW, loudness))


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(pauses, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ConfigError, match="another one than this dgasr's"):
        weights_path()


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="--segmentation loud: choose speech or loudness"):
        SegmentationConfig(method="loud")
