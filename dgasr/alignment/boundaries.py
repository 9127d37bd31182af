"""Rough word edges and the loudness of every frame in, edges where sound begins and ends out. Knows no CTC, no text.

CTC says which words there are and roughly where; it peaks inside a word and says little about its edges. Where a word
borders on a pause the audio itself shows the edge, to half a mel hop. Words that run into each other keep CTC's edges.
All positions here are samples from the segment's start.
"""

from dataclasses import dataclass

import numpy as np

from dgasr.alignment.config import AlignmentConfig
from dgasr.records import SAMPLE_RATE_HZ

DB_PER_MEL_UNIT = 40.0
"""Whisper scales log-mel as `(log10(power) + 4) / 4`."""

BEYOND = 1e9
"""A position, in samples, outside of any segment."""


@dataclass(frozen=True, slots=True)
class Loudness:
    """How loud a segment is over time."""

    db: np.ndarray
    """Mean level of the mel bands, dB up to a constant; frame `i` is centred on sample `i * hop_samples`.  [frames]"""
    hop_samples: int
    """Samples from one frame to the next."""


def loudness(log_mel: np.ndarray, hop_samples: int) -> Loudness:
    """Measure loudness as the mean over mel bands in dB.

    The mean of logarithms hears a weak consonant in a few bands; the logarithm of the sum would hear only the vowels.

    Args:
        log_mel: features as Whisper scales them, the frames of audio only.  [mels, frames]
        hop_samples: samples from one frame to the next.
    """
    return Loudness(DB_PER_MEL_UNIT * log_mel.astype(np.float32).mean(axis=0), hop_samples)


def snap_to_sound(edges: np.ndarray, pivots: np.ndarray, sound: Loudness, config: AlignmentConfig) -> np.ndarray:
    """Move word edges to the edges of the pauses between them, where there is a pause near enough.

    Of the quiet stretches between two words' pivots that one counts whose two ends lie nearest to the rough end and the
    rough start: a closure inside a word ("six") is nearer to one of them at most.

    Args:
        edges: rough starts and ends, in order of time.  [words, 2]
        pivots: a sample inside each word that no edge may cross.  [words]
        sound: loudness of the segment.
        config: what counts as quiet, and how far an edge may move.

    Returns:
        The edges, those near a pause moved to it.  [words, 2]
    """
    moved = edges.astype(float)
    pauses = _pauses(sound, config)
    limit = config.max_snap_ms * SAMPLE_RATE_HZ / 1000
    for gap in range(len(edges) + 1):
        has_end, has_start = gap > 0, gap < len(edges)
        after = pauses[:, 0] >= (pivots[gap - 1] if has_end else -BEYOND)
        between = pauses[after & (pauses[:, 1] <= (pivots[gap] if has_start else BEYOND))]
        if not len(between):
            continue
        rough = (moved[gap - 1, 1] if has_end else 0.0, moved[gap, 0] if has_start else 0.0)
        distances = np.abs(between - rough) * (has_end, has_start)
        # How far beyond the limit does not matter: such an edge stays where it is.
        nearest = np.minimum(distances, limit + 1).sum(axis=1).argmin()
        if has_end and distances[nearest, 0] <= limit:
            moved[gap - 1, 1] = between[nearest, 0]
        if has_start and distances[nearest, 1] <= limit:
            moved[gap, 0] = between[nearest, 1]
    return moved


def _pauses(sound: Loudness, config: AlignmentConfig) -> np.ndarray:
    """Find the quiet stretches, from the last loud frame before to the first loud frame after each.  [pauses, 2].

    A stretch that touches the segment's edge reaches beyond it: nothing there can be the edge of a word.
    """
    if not sound.db.size:
        return np.empty((0, 2))
    quiet = sound.db < np.percentile(sound.db, config.floor_percentile) + config.quiet_margin_db
    steps = np.diff(np.concatenate([[0], quiet, [0]]).astype(np.int8))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    long_enough = (ends - starts) * sound.hop_samples >= config.min_quiet_ms * SAMPLE_RATE_HZ / 1000
    # A frame turns loud as soon as sound reaches about its middle, so its centre is the edge's best estimate.
    last_loud = np.where(starts > 0, (starts - 1) * sound.hop_samples, -BEYOND)
    first_loud = np.where(ends < len(quiet), ends * sound.hop_samples, BEYOND)
    return np.stack([last_loud, first_loud], axis=1)[long_enough]
