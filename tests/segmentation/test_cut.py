"""Recordings are covered exactly, and cut where they pause."""

import itertools
import tracemalloc

import numpy as np
import pytest
import soundfile

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.segmentation import SegmentationConfig, Span, cut_at_silence

CONFIG = SegmentationConfig(method="loudness")
WINDOW = 8 * SAMPLE_RATE_HZ


def noise(duration_s, amplitude, seed=0):
    return (amplitude * np.random.default_rng(seed).standard_normal(round(duration_s * SAMPLE_RATE_HZ))).astype("f4")


def zeros(duration_s):
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)


def speech(duration_s, seed=0):
    """Make noise whose level goes up and down as speech does: syllables of 200 ms without pauses between them."""
    samples = noise(duration_s, 0.1, seed)
    time_s = np.arange(samples.size) / SAMPLE_RATE_HZ
    return (samples * (0.55 + 0.45 * np.sin(2 * np.pi * 5 * time_s))).astype(np.float32)


def spans_of(*parts, window=WINDOW, config=CONFIG) -> list[Span]:
    samples = np.concatenate(parts)
    spans = []
    position = 0
    for span, waveform in cut_at_silence([samples], window, config):
        assert span.start_sample == position
        np.testing.assert_array_equal(waveform, samples[span.start_sample : span.end_sample])
        position = span.end_sample
        spans.append(span)
    assert position == samples.size
    assert all(0 < span.end_sample - span.start_sample <= window for span in spans)
    return spans


def kinds(spans):
    return [span.kind for span in spans]


def ends_s(spans):
    return [span.end_sample / SAMPLE_RATE_HZ for span in spans]


@pytest.mark.parametrize("num_samples", [1, 159, 160, 161, 2 * WINDOW - 1, 2 * WINDOW, 2 * WINDOW + 1, 300_007])
def test_every_sample_is_covered_once(num_samples):
    spans_of(speech(40.0)[:num_samples])


def test_no_samples_give_no_spans():
    assert list(cut_at_silence([], WINDOW, CONFIG)) == []


def test_what_fits_into_the_window_stays_whole():
    (span,) = spans_of(speech(3.0), zeros(0.5), speech(3.0))
    assert (span.kind, span.cut) == ("speech", "end")


def test_a_longer_recording_is_cut_in_its_pause():
    first, second = spans_of(speech(6.0), zeros(0.5), speech(6.0, seed=1))
    assert (first.cut, second.cut) == ("silence", "end")
    assert 6.0 <= ends_s([first])[0] <= 6.5


def test_a_late_pause_is_preferred_to_an_early_one():
    spans = spans_of(speech(2.0), zeros(0.3), speech(4.0, seed=1), zeros(0.3), speech(5.0, seed=2))
    assert 6.3 <= ends_s(spans)[0] <= 6.6


def test_a_long_pause_is_preferred_to_a_dip():
    spans = spans_of(speech(5.0), zeros(0.5), speech(2.0, seed=1), zeros(0.11), speech(4.0, seed=2))
    assert 5.0 <= ends_s(spans)[0] <= 5.5


def test_pauses_are_found_in_noise():
    parts = np.concatenate([speech(6.0), zeros(0.5), speech(6.0, seed=1)])
    spans = spans_of(parts + noise(12.5, 0.01, seed=3))
    assert [span.cut for span in spans] == ["silence", "end"]
    assert 6.0 <= ends_s(spans)[0] <= 6.5


def test_a_constant_offset_does_not_matter():
    parts = np.concatenate([speech(6.0), zeros(0.5), speech(6.0, seed=1)])
    assert [span.cut for span in spans_of(parts + np.float32(0.2))] == ["silence", "end"]


def test_sound_without_any_pause_is_cut_by_force_and_marked():
    spans = spans_of(speech(20.0))
    assert [span.cut for span in spans[:-1]] == ["forced"] * (len(spans) - 1)
    assert all(span.end_sample - span.start_sample >= 0.75 * WINDOW - 160 for span in spans[:-1])


def test_a_forced_cut_lies_at_the_quietest_point_near_the_windows_end():
    samples = speech(12.0)
    dip = slice(round(7.02 * SAMPLE_RATE_HZ), round(7.07 * SAMPLE_RATE_HZ))
    samples[dip] *= 0.1
    first, _ = spans_of(samples)
    assert first.cut == "forced"
    assert 7.02 <= first.end_sample / SAMPLE_RATE_HZ <= 7.07


def test_long_silences_become_segments_of_their_own_and_speech_keeps_its_padding():
    spans = spans_of(zeros(3.0), speech(3.0), zeros(4.0), speech(2.0, seed=1), zeros(3.0))
    assert kinds(spans) == ["silence", "speech", "silence", "speech", "silence"]
    np.testing.assert_allclose(ends_s(spans), [2.8, 6.2, 9.8, 12.2, 15.0], atol=0.1)


def test_a_silence_longer_than_the_window_is_covered_by_several():
    spans = spans_of(zeros(20.0), speech(2.0))
    assert kinds(spans) == ["silence", "silence", "silence", "speech"]


def test_the_rest_of_a_long_silence_is_silence_up_to_the_padding_of_speech():
    spans = spans_of(zeros(9.3), speech(2.0))
    assert kinds(spans) == ["silence", "silence", "speech"]
    np.testing.assert_allclose(ends_s(spans), [8.0, 9.1, 11.3], atol=0.1)


def test_noise_between_speech_is_silence_too():
    samples = np.concatenate([speech(3.0), zeros(5.0), speech(3.0, seed=1)]) + noise(11.0, 0.003, seed=3)
    assert kinds(spans_of(samples)) == ["speech", "silence", "speech"]


@pytest.mark.parametrize("window_s", [8, 30])
@pytest.mark.parametrize(
    "samples",
    [
        zeros(10.0),
        noise(10.0, 0.3),
        noise(10.0, 0.0001),
        (0.3 * np.sin(np.arange(160_000) * 0.17)).astype(np.float32),
        zeros(0.4),
    ],
    ids=["digital silence", "loud noise", "faint noise", "tone", "short silence"],
)
def test_what_holds_no_speech_is_silence_throughout(samples, window_s):
    assert set(kinds(spans_of(samples, window=window_s * SAMPLE_RATE_HZ))) == {"silence"}


def test_a_single_word_in_a_minute_of_noise_is_kept():
    samples = np.concatenate([zeros(30.0), speech(0.4), zeros(30.0)]) + noise(60.4, 0.003, seed=3)
    speech_spans = [span for span in spans_of(samples) if span.kind == "speech"]
    assert len(speech_spans) == 1
    assert speech_spans[0].start_sample <= 29.9 * SAMPLE_RATE_HZ
    assert speech_spans[0].end_sample >= 30.5 * SAMPLE_RATE_HZ


def test_a_far_quieter_second_speaker_is_not_taken_for_silence():
    spans = spans_of(speech(6.0), zeros(0.3), 0.03 * speech(5.0, seed=1), zeros(0.3), speech(5.0, seed=2))
    assert set(kinds(spans)) == {"speech"}


def test_clicks_do_not_turn_silence_into_speech():
    samples = zeros(10.0)
    samples[8_000::24_000] = 0.5
    assert "speech" not in kinds(spans_of(speech(3.0), samples)[1:])


def test_nearly_nothing_is_left_over_at_the_end_where_it_can_be_avoided():
    spans = spans_of(speech(8.3))
    assert min(span.end_sample - span.start_sample for span in spans) >= SAMPLE_RATE_HZ - 160


@pytest.mark.parametrize("block_samples", [1_600, 7_001, 100_003])
@pytest.mark.parametrize("window_s", [8, 30])
def test_spans_do_not_depend_on_the_blocks(block_samples, window_s):
    parts = [speech(5.0), zeros(0.4), speech(9.0, seed=1), zeros(3.0), speech(30.0, seed=2), noise(9.0, 0.01, seed=3)]
    samples = np.concatenate(parts)
    blocks = (samples[start : start + block_samples] for start in range(0, samples.size, block_samples))
    window = window_s * SAMPLE_RATE_HZ
    assert [span for span, _ in cut_at_silence(blocks, window, CONFIG)] == spans_of(samples, window=window)


def test_spans_do_not_depend_on_random_blocks_with_empty_ones_among_them():
    samples = np.concatenate([speech(7.0), zeros(0.4), speech(9.0, seed=1)])
    for seed in range(10):
        cuts = np.sort(np.random.default_rng(seed).integers(0, samples.size, 40))
        edges = [0, 0, *cuts.tolist(), samples.size]
        blocks = (samples[start:end] for start, end in itertools.pairwise(edges))
        assert [span for span, _ in cut_at_silence(blocks, WINDOW, CONFIG)] == spans_of(samples)


def test_memory_does_not_grow_with_the_recording():
    block = np.concatenate([speech(6.0), zeros(0.5)])
    tracemalloc.start()
    for _ in cut_at_silence(itertools.repeat(block, 200), WINDOW, CONFIG):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("window_s", [8, 30])
def test_digits_are_never_cut_in_two(shared_data, window_s):
    generator = np.random.default_rng(0)
    paths = sorted((shared_data / "fsdd" / "recordings").glob("*_jackson_*.wav"))
    parts, words, position = [], [], 0
    for path in generator.permutation(np.array(paths, dtype=object))[:60]:
        digit = soundfile.read(path, dtype="float32")[0].repeat(2)  # 8 kHz; the level is all that counts here
        gap = zeros(generator.uniform(0.1, 0.3))
        words.append((position, position + digit.size))
        parts += [digit, gap]
        position += digit.size + gap.size
    cuts = [span.end_sample for span in spans_of(*parts, window=window_s * SAMPLE_RATE_HZ)]
    edge = round(0.02 * SAMPLE_RATE_HZ)
    assert not [cut for cut in cuts for start, end in words if start + edge < cut < end - edge]


def test_a_window_that_holds_no_two_segments_is_refused():
    with pytest.raises(ConfigError, match="min_segment_s"):
        list(cut_at_silence([zeros(1.0)], SAMPLE_RATE_HZ, CONFIG))
