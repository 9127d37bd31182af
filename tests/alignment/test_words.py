"""From spans to words: positions, order, confidence, and what happens to texts that do not fit."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from dgasr.alignment.words import AlignmentConfig, Loudness, WordTokens, align_words, segment_confidence
from dgasr.model.presets import ProjectorConfig
from dgasr.model.projector import Projector
from dgasr.records import Segment, Word

CONFIG = AlignmentConfig()
NO_SOUND = Loudness(np.empty(0), 160)


def segment(num_samples=32_000, start_sample=0):
    return Segment(
        recording_id="r", segment_index=0, channel=0, start_sample=start_sample,
        end_sample=start_sample + num_samples, kind="speech", cut="end",
    )  # fmt: skip


def posteriors(num_frames, *tokens, peak=0.9):
    """Log-probabilities where token k is likely in frames [start, end) and the blank elsewhere."""
    probabilities = np.full((num_frames, 1 + len(tokens)), (1 - peak) / max(len(tokens), 1))
    probabilities[:, 0] = peak
    for column, (start, end) in enumerate(tokens, 1):
        probabilities[start:end] = (1 - peak) / len(tokens)
        probabilities[start:end, column] = peak
    return np.log(probabilities)


TWO_WORDS = [WordTokens("nineteen", 0, 2, 0.9), WordTokens("one", 2, 3, 0.8)]
TWO_WORDS_FRAMES = posteriors(100, (10, 14), (18, 22), (60, 70))


def align(words=TWO_WORDS, labels=(5, 6, 7), log_probs=TWO_WORDS_FRAMES, where=None, config=CONFIG, sound=NO_SOUND):
    return align_words(words, labels, log_probs, sound, where or segment(), config)


def test_a_word_lasts_from_its_first_tokens_start_to_its_last_tokens_end():
    (nineteen, one), source = align()
    assert source == "ctc"
    assert (nineteen.word, nineteen.start_sample, nineteen.end_sample) == ("nineteen", 3040, 6880)
    assert (one.word, one.start_sample, one.end_sample) == ("one", 19_040, 22_240)


def test_words_that_share_a_token_divide_its_frames():
    words = [WordTokens("我", 0, 1, 1.0), WordTokens("们", 0, 1, 1.0), WordTokens("是", 0, 2, 1.0)]
    placed, _ = align(words, (5, 6), posteriors(50, (10, 16), (20, 24)))
    expected = [(3040, 3680), (3680, 4320), (4320, 7520)]
    assert [(word.start_sample, word.end_sample) for word in placed] == expected


def test_positions_count_from_the_recordings_start():
    (first, _), _ = align(where=segment(start_sample=16_000))
    assert first.start_sample == 16_000 + 3040


def test_offsets_move_starts_and_ends():
    (first, _), _ = align(config=AlignmentConfig(start_offset_ms=-50.0, end_offset_ms=80.0))
    assert (first.start_sample, first.end_sample) == (3040 - 800, 6880 + 1280)


def test_sound_decides_where_it_can():
    db = np.full(200, -80.0)
    db[15:50] = db[110:150] = -20.0
    (first, _), _ = align(sound=Loudness(db, 160))
    assert (first.start_sample, first.end_sample) == (15 * 160, 49 * 160)


def test_words_that_would_overlap_meet_in_the_middle():
    frames = posteriors(100, (10, 20), (22, 30))
    words = [WordTokens("a", 0, 1, 1.0), WordTokens("b", 1, 2, 1.0)]
    config = AlignmentConfig(start_offset_ms=-80.0, end_offset_ms=80.0)
    (first, second), _ = align(words, (5, 6), frames, config=config)
    assert first.end_sample == second.start_sample == round((19.5 + 21.5) / 2 * 320)


@pytest.mark.parametrize("seed", range(20))
def test_words_are_ordered_inside_the_segment_and_never_empty_whatever_the_posteriors(seed):
    generator = np.random.default_rng(seed)
    num_words, num_samples = 12, int(generator.integers(8_000, 40_000))
    log_probs = np.log(generator.dirichlet(np.full(num_words + 1, 0.3), size=num_samples // 320 + 2) + 1e-9)
    words = [WordTokens("w", position, position + 1, 0.5) for position in range(num_words)]
    sound = Loudness(generator.normal(scale=10, size=num_samples // 160), 160)
    config = AlignmentConfig(start_offset_ms=-90.0, end_offset_ms=90.0)
    placed, _ = align(words, range(num_words), log_probs, segment(num_samples, 777), config, sound)
    assert len(placed) == num_words
    assert placed[0].start_sample >= 777
    assert placed[-1].end_sample <= 777 + num_samples
    assert all(word.start_sample < word.end_sample for word in placed)
    assert all(left.end_sample <= right.start_sample for left, right in pairwise(placed))


def test_confidence_is_the_geometric_mean_of_decoder_and_ctc():
    (nineteen, one), _ = align()
    assert nineteen.confidence == pytest.approx((0.9 * 0.9) ** 0.5)
    assert one.confidence == pytest.approx((0.8 * 0.9) ** 0.5)


def test_the_least_likely_token_decides_a_words_confidence():
    frames = TWO_WORDS_FRAMES.copy()
    frames[18:22, 2] = np.log(0.04)
    (nineteen, _), _ = align(log_probs=frames)
    assert nineteen.confidence == pytest.approx((0.9 * 0.04) ** 0.5, rel=0.01)


@pytest.mark.parametrize(("power", "shift"), [(1.0, 0.0), (0.7, 0.7), (2.0, -1.0)])
def test_log_odds_of_confidence_are_scaled_and_shifted_as_platts_method_has_it(power, shift):
    config = AlignmentConfig(confidence_power=power, confidence_shift=shift)
    plain, scaled = (align(config=own)[0] for own in (AlignmentConfig(), config))
    for before, after in zip(plain, scaled, strict=True):
        assert after.confidence == pytest.approx(expit(power * logit(before.confidence) + shift))
    words = [WordTokens("never", 0, 1, 0.0), WordTokens("always", 1, 2, 1.0)]
    (never, always), _ = align(words, (1, 2), posteriors(30, (2, 4), (9, 12), peak=1 - 1e-12), config=config)
    assert never.confidence == 0.0
    assert always.confidence == pytest.approx(1.0)


def test_no_words_have_no_timing_source():
    assert align([], (), posteriors(10)) == ((), "none")


def test_a_text_with_more_tokens_than_frames_is_spread_by_letters_and_not_trusted():
    words = [WordTokens("eleven", 0, 1, 0.9), WordTokens("to", 1, 2, 0.9)]
    placed, source = align(words, (5, 5), posteriors(2, (0, 1), (1, 2)), segment(800))
    assert source == "interpolated"
    assert [(word.start_sample, word.end_sample) for word in placed] == [(0, 600), (600, 800)]
    assert [word.confidence for word in placed] == [0.0, 0.0]


def test_more_words_than_samples_still_lie_inside_the_segment():
    words = [WordTokens("a", position, position + 1, 0.9) for position in range(9)]
    placed, _ = align(words, range(9), posteriors(1, *[(0, 1)] * 9), segment(4, 100))
    assert len(placed) == 9
    assert all(100 <= word.start_sample < word.end_sample <= 104 for word in placed)


def test_a_segments_confidence_is_the_share_of_words_expected_to_be_right():
    words = [Word(word="w", start_sample=0, end_sample=1, confidence=value) for value in (0.5, 1.0)]
    assert segment_confidence(words, np.zeros(3)) == 0.75


def test_an_empty_texts_confidence_is_the_least_sure_blank():
    assert segment_confidence([], np.log([0.9, 0.6, 0.99])) == pytest.approx(0.6)


def test_frame_i_of_the_shifted_projector_is_centred_on_encoder_frame_i():
    torch.manual_seed(0)
    projector = Projector(ProjectorConfig(channels=(4, 4, 4)), encoder_width=3, hidden_size=2)
    frames = torch.zeros(1, 64, 3)
    moved = frames.clone()
    moved[0, 29] = 1.0
    with torch.no_grad():
        fine, before = (projector.forward_shifted(each[0], projector(each)[0]) for each in (moved, frames))
        changed = (fine - before).abs().sum(dim=-1)
    reached = changed.nonzero()[:, 0]
    assert (reached.min().item(), reached.max().item()) == (29 - 7, 29 + 7)
