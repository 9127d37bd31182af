"""A recording's waveform in, its segments out, with features where somebody speaks. Knows no file and no model."""

from collections.abc import Iterable, Iterator

import numpy as np

from dgasr.features import segment_features
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures
from dgasr.segmentation import cut_at_silence


def cut_recording(
    blocks: Iterable[np.ndarray], recording_id: str, recipe: Recipe
) -> Iterator[tuple[Segment, SegmentFeatures | None]]:
    """Cut a recording at its silences.

    Args:
        blocks: its waveform at `SAMPLE_RATE_HZ`, in pieces of any length.  [samples] each
        recording_id: whose segments they are.
        recipe: how to cut, and what the encoder takes.

    Yields:
        Segments that cover all samples, in order; features are `None` where nobody speaks.

    Raises:
        AudioError: whatever the blocks raise.
    """
    spans = cut_at_silence(blocks, recipe.features.window_samples, recipe.segmentation)
    for index, (span, waveform) in enumerate(spans):
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
