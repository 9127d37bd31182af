"""A recording's waveform in, its segments out, with features where somebody speaks. Knows no file and no model."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from dgasr.audio import Channel
from dgasr.errors import TruncatedError
from dgasr.features import segment_features
from dgasr.recipe import Recipe
from dgasr.records import Gap, Segment, SegmentFeatures
from dgasr.segmentation import Span, cut_at_silence

EMPTY = np.zeros(0, dtype=np.float32)


def cut_channels(
    channels: Iterable[Channel], recording_id: str, recipe: Recipe
) -> Iterator[tuple[Segment, SegmentFeatures | None]]:
    """Cut what is transcribed by itself of a recording, its tracks and channels, one after the other.

    Segments are numbered through. Those of each channel cover the recording, as long as its longest track is: gaps fill
    shorter ones up, last of all. AudioError is whatever the pieces raise.
    """
    num_segments, ends = 0, dict[tuple[int, int], int]()
    for channel in channels:
        place = channel.audio_track, channel.channel
        ends[place] = 0
        for segment, features in cut_recording(channel.pieces, recording_id, recipe, num_segments, *place):
            num_segments, ends[place] = num_segments + 1, segment.end_sample
            yield segment, features
    longest = max(ends.values(), default=0)
    for place, end in ends.items():
        filling = [Gap(num_samples=longest - end)] if end < longest else []
        for segment, _ in cut_recording(filling, recording_id, recipe, num_segments, *place):
            start, num_segments = end + segment.start_sample, num_segments + 1
            yield replace(segment, start_sample=start, end_sample=end + segment.end_sample), None


def cut_recording(
    pieces: Iterable[np.ndarray | Gap],
    recording_id: str,
    recipe: Recipe,
    first_index: int = 0,
    audio_track: int = 0,
    channel: int = 0,
) -> Iterator[tuple[Segment, SegmentFeatures | None]]:
    """Cut a recording at its silences, and at its gaps: segments that cover all samples, in order.

    Pieces are its waveform at `SAMPLE_RATE_HZ`, [samples] of any length each, and gaps before them; AudioError is
    whatever they raise. The first segment gets the number `first_index`. Features are `None` where nobody speaks.
    """
    for index, (span, waveform) in enumerate(_spans(pieces, recipe), first_index):
        segment = Segment(
            recording_id=recording_id,
            segment_index=index,
            channel=channel,
            audio_track=audio_track,
            start_sample=span.start_sample,
            end_sample=span.end_sample,
            kind=span.kind,
            cut=span.cut,
        )
        yield segment, segment_features(segment, waveform, recipe.features) if span.kind == "speech" else None


def until_truncation(channels: Iterable[Channel], truncations: list[TruncatedError]) -> Iterator[Channel]:
    """End channels where the audio breaks off, so that what came before is still cut and kept.

    `truncations` takes the errors that ended some of them.
    """

    def ended(pieces: Iterator[np.ndarray | Gap]) -> Iterator[np.ndarray | Gap]:
        try:
            yield from pieces
        except TruncatedError as error:
            truncations.append(error)

    return (replace(channel, pieces=ended(channel.pieces)) for channel in channels)


def _spans(pieces: Iterable[np.ndarray | Gap], recipe: Recipe) -> Iterator[tuple[Span, np.ndarray]]:
    """Cut what lies between gaps, and give gaps spans of their own, none longer than a window."""
    source, position = _Runs(pieces), 0
    while not source.is_over:
        start = position
        for span, waveform in cut_at_silence(source.run(), recipe.features.window_samples, recipe.segmentation):
            position = start + span.end_sample
            cut = "silence" if span.cut == "end" and not source.is_over else span.cut
            yield replace(span, start_sample=start + span.start_sample, end_sample=position, cut=cut), waveform
        end = position + source.gap
        while position < end:
            after = min(end, position + recipe.features.window_samples)
            yield Span(start_sample=position, end_sample=after, kind="gap", cut="silence"), EMPTY
            position = after


class _Runs:
    """Hands out the blocks between one gap and the next."""

    def __init__(self, pieces: Iterable[np.ndarray | Gap]) -> None:
        self._pieces = iter(pieces)
        self.is_over = False
        self.gap = 0

    def run(self) -> Iterator[np.ndarray]:
        """Yield blocks up to the next gap; its length in samples is then `gap`, 0 at the recording's end."""
        self.gap = 0
        for piece in self._pieces:
            if isinstance(piece, Gap):
                self.gap = piece.num_samples
                return
            yield piece
        self.is_over = True
