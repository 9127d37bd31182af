from types import SimpleNamespace

import numpy as np
import pytest

from dgasr.audio import Channel
from dgasr.errors import TruncatedError
from dgasr.features import FeatureConfig
from dgasr.frontend import cut_channels, cut_recording
from dgasr.records import SAMPLE_RATE_HZ, Gap
from dgasr.segmentation import SegmentationConfig

RECIPE = SimpleNamespace(
    segmentation=SegmentationConfig(method="loudness"),
    features=FeatureConfig(window_samples=2 * SAMPLE_RATE_HZ, num_mel_bins=80),
)


def two_phrases() -> np.ndarray:
    """Give a second and a half of babble, four seconds of nothing, and the babble again."""
    time_s = np.arange(round(1.5 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    babble = 0.3 * np.sin(2 * np.pi * 300 * time_s) * np.sin(2 * np.pi * 2 * time_s) ** 2
    hush = 1e-4 * np.random.default_rng(3).standard_normal(4 * SAMPLE_RATE_HZ)
    return np.concatenate([babble, hush, babble]).astype(np.float32)


def test_segments_are_numbered_and_cover_the_recording():
    segments = [segment for segment, _ in cut_recording([two_phrases()], "r", RECIPE)]
    assert [segment.segment_index for segment in segments] == list(range(len(segments)))
    assert [segment.start_sample for segment in segments] == [0, *(segment.end_sample for segment in segments[:-1])]
    assert segments[-1].end_sample == two_phrases().size
    assert {segment.recording_id for segment in segments} == {"r"}


def test_speech_alone_has_features():
    pairs = list(cut_recording([two_phrases()], "r", RECIPE))
    assert {segment.kind for segment, _ in pairs} == {"speech", "silence"}
    assert all((features is not None) == (segment.kind == "speech") for segment, features in pairs)


def test_features_reach_to_the_end_of_their_segment():
    for segment, features in cut_recording([two_phrases()], "r", RECIPE):
        if features is not None:
            assert features.segment is segment
            assert features.log_mel.shape[1] * RECIPE.features.hop_samples >= segment.num_samples


@pytest.mark.parametrize("order", [(0, 1, 0), (1, 0), (1, 0, 1, 1, 0), (0, 0, 1, 0)])
def test_gaps_are_segments_of_their_own_and_the_cover_stays_exact(order):
    pieces = [two_phrases() if kind == 0 else Gap(num_samples=5 * SAMPLE_RATE_HZ) for kind in order]
    segments = [segment for segment, _ in cut_recording(iter(pieces), "r", RECIPE)]
    assert [segment.start_sample for segment in segments] == [0, *(segment.end_sample for segment in segments[:-1])]
    assert all(0 < segment.num_samples <= RECIPE.features.window_samples for segment in segments)
    total = sum(piece.num_samples if isinstance(piece, Gap) else piece.size for piece in pieces)
    assert segments[-1].end_sample == total
    gaps = [segment for segment in segments if segment.kind == "gap"]
    assert sum(segment.num_samples for segment in gaps) == order.count(1) * 5 * SAMPLE_RATE_HZ
    assert [segment.cut for segment in segments].index("end") == len(segments) - 1


def test_speech_beside_a_gap_is_cut_as_it_is_alone():
    alone = [(s.start_sample, s.end_sample, s.kind) for s, _ in cut_recording([two_phrases()], "r", RECIPE)]
    pieces = [two_phrases(), Gap(num_samples=SAMPLE_RATE_HZ), two_phrases()]
    segments = [segment for segment, _ in cut_recording(iter(pieces), "r", RECIPE)]
    shift = two_phrases().size + SAMPLE_RATE_HZ
    around = [(s.start_sample, s.end_sample, s.kind) for s in segments if s.kind != "gap"]
    assert around == alone + [(start + shift, end + shift, kind) for start, end, kind in alone]


def test_what_the_audio_raises_comes_through():
    def breaking_off():
        yield two_phrases()
        raise TruncatedError("a.wav: ends early. Look at it.")

    with pytest.raises(TruncatedError):
        list(cut_recording(breaking_off(), "r", RECIPE))


def test_each_channel_covers_the_recording_as_long_as_its_longest_track_is():
    waveforms = {(0, 0): two_phrases(), (1, 0): two_phrases()[:20_000], (1, 1): np.zeros(0, np.float32)}
    channels = [
        Channel(audio_track=t, channel=c, pieces=iter([w] if w.size else [])) for (t, c), w in waveforms.items()
    ]
    segments = [segment for segment, _ in cut_channels(channels, "r", RECIPE)]
    assert [segment.segment_index for segment in segments] == list(range(len(segments)))
    for place, waveform in waveforms.items():
        found = [segment for segment in segments if (segment.audio_track, segment.channel) == place]
        assert [segment.start_sample for segment in found] == [0, *(segment.end_sample for segment in found[:-1])]
        assert found[-1].end_sample == two_phrases().size
        gap = sum(segment.num_samples for segment in found if segment.kind == "gap")
        assert gap == two_phrases().size - waveform.size
