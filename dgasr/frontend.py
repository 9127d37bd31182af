"""A recording's waveform in, its segments out, with features where somebody speaks. Knows no file and no model."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from dgasr.features import segment_features
from dgasr.recipe import Recipe
from dgasr.records import Gap, Segment, SegmentFeatures
from dgasr.segmentation import Span, cut_at_silence

EMPTY = np.zeros(0, dtype=np.float32)


def cut_recording(
    pieces: Iterable[np.ndarray | Gap], recording_id: str, recipe: Recipe
) -> Iterator[tuple[Segment, SegmentFeatures | None]]:
    """Cut a recording at its silences, and at its gaps.

    Args:
        pieces: its waveform at `SAMPLE_RATE_HZ`, [samples] of any length each, and gaps before them.
        recording_id: whose segments they are.
        recipe: how to cut, and what the encoder takes.

    Yields:
        Segments that cover all samples, in order; features are `None` where nobody speaks.

    Raises:
        AudioError: whatever the pieces raise.
    """
    for index, (span, waveform) in enumerate(_spans(pieces, recipe)):
        segment = Segment(
            recording_id=recording_id,
            segment_index=index,
            channel=0,
            start_sample=span.start_sample,
            end_sample=span.end_sample,
            kind=span.kind,
            cut=span.cut,
        )
        yield segment, segment_features(segment, waveform, recipe.features) if span.kind == "speech" else None


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
