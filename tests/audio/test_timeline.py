"""Positions agree with the container's timestamps, also after a gap."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dgasr.audio.source import AudioConfig
from dgasr.audio.timeline import Timeline
from dgasr.errors import DamagedError, TruncatedError, UnknownFormatError
from dgasr.records import Gap

RATE_HZ = 8000


def timeline(*, start_s=None, declared_s=None, missing="lost", priming=0):
    return Timeline(
        label="a.webm",
        sample_rate_hz=RATE_HZ,
        num_channels=1,
        start_s=start_s,
        declared_s=declared_s,
        missing=lambda: missing,
        has_timestamps=True,
        priming=priming,
        config=AudioConfig(),
    )


def frame(start, num_samples=1000, value=0.5, rate_hz=RATE_HZ):
    made = av.AudioFrame.from_ndarray(np.full((1, num_samples), value, np.float32), format="fltp", layout="mono")
    made.sample_rate, made.pts, made.time_base = rate_hz, start, Fraction(1, RATE_HZ)
    return made


def aligned(frames, **arguments):
    return np.concatenate(list(timeline(**arguments).align(frames)))[:, 0]


def test_frames_that_follow_each_other_are_joined():
    assert aligned([frame(0), frame(1000)]).size == 2000


def test_a_start_later_than_zero_is_no_gap():
    assert aligned([frame(5000), frame(6000)]).size == 2000


def test_a_pause_of_a_live_recording_becomes_silence():
    samples = aligned([frame(0), frame(3000)], missing="not_sent")
    assert samples.size == 4000
    assert not samples[1000:3000].any()


def test_a_gap_elsewhere_is_damage_and_later_audio_stays_in_place():
    blocks, samples = timeline().align([frame(0), frame(3000, value=0.25)]), []
    with pytest.raises(DamagedError, match=r"0\.25 s"):
        samples.extend(blocks)
    assert np.concatenate(samples)[3000:].min() == 0.25


def test_a_packet_that_cannot_be_decoded_costs_its_own_audio_only():
    assert aligned([frame(0), None, frame(1400)], declared_s=0.3).size == 2400


def test_a_short_hole_is_left_to_the_header_to_judge():
    assert aligned([frame(0), frame(1000), None], declared_s=0.26).size == 2000


def test_a_damaged_end_without_a_header_is_a_truncation():
    with pytest.raises(TruncatedError, match="breaks off"):
        aligned([frame(0), None])


def test_rounded_timestamps_are_no_gap():
    assert aligned([frame(0), frame(1003), frame(1998)]).size == 3000


def test_audio_that_begins_after_the_recording_does_has_a_gap_before_it():
    gap, samples = timeline(start_s=0.5).align([frame(4000 + 24_000)])
    assert gap == Gap(num_samples=24_000)
    assert samples.shape == (1000, 1)


def test_a_start_a_little_late_is_silence():
    assert aligned([frame(500)], start_s=0.0).size == 1500


def test_priming_before_the_start_is_no_gap():
    assert aligned([frame(-1000), frame(0)], start_s=0.0).size == 2000


def test_priming_that_nobody_left_out_is_left_out_and_later_times_stay_right():
    samples = aligned([frame(0, value=1.0), frame(1000), frame(2000)], priming=1105)
    assert samples.size == 1895
    assert samples.max() == 0.5
    pieces = list(timeline(missing="not_sent", priming=1105).align([frame(0), frame(1000), frame(9000 + 2000)]))
    assert [piece.num_samples if isinstance(piece, Gap) else len(piece) for piece in pieces] == [0, 895, 9000, 1000]


def test_a_long_hole_is_a_gap_and_later_audio_stays_in_place():
    pieces = list(timeline(missing="not_sent").align([frame(0), frame(9000), frame(10_000)]))
    assert [piece.num_samples if isinstance(piece, Gap) else len(piece) for piece in pieces] == [1000, 8000, 1000, 1000]


def test_what_a_codec_leaves_out_is_silence_however_long():
    samples = aligned([frame(0), frame(20_000)], missing="pause")
    assert samples.size == 21_000
    assert not samples[1000:20_000].any()


@pytest.mark.parametrize("stamps", [(90_000, 0, 1000), (0, 10**9, 10**9 + 1000)])
def test_timestamps_that_jump_back_or_by_days_are_told_and_all_audio_is_kept(stamps):
    blocks, samples = timeline().align([frame(stamp) for stamp in stamps]), []
    with pytest.raises(DamagedError, match="timestamps jump 1 times"):
        samples.extend(blocks)
    assert sum(map(len, samples)) == 3000


def test_timestamps_that_run_back_a_little_are_rounded_badly():
    assert aligned([frame(2000), frame(0), frame(1000)]).size == 3000


def test_padding_of_the_last_frame_is_cut_off():
    assert aligned([frame(0), frame(1000)], declared_s=0.2).size == 1600


def test_a_header_far_too_short_cuts_nothing():
    assert aligned([frame(0), frame(1000)], declared_s=0.1).size == 2000


def test_a_change_of_sample_rate_is_resampled():
    assert aligned([frame(0), frame(1000, rate_hz=2 * RATE_HZ)]).size == pytest.approx(1500, abs=20)


def test_audio_of_which_no_packet_can_be_decoded_is_of_unknown_format():
    with pytest.raises(UnknownFormatError, match="encrypted"):
        list(timeline().align([None, None]))
