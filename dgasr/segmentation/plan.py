"""Where the next cut lies, given levels and pauses ahead. Positions are frames from the end of the last span."""

from dataclasses import dataclass

import numpy as np

from dgasr.records import SAMPLE_RATE_HZ, CutKind, SegmentKind
from dgasr.segmentation.config import SegmentationConfig
from dgasr.segmentation.loudness import FRAME_SAMPLES, find_pauses, smooth

CUT_WIDTH_FRAMES = 5
"""A cut lies where this much around it is quietest: the shortest gap between two words."""

CLICK_SHARE = 0.05
"""Clicks that fill more than this share of a stretch may be the peaks of faint speech."""

FORCED_SHARE = 0.25
"""Without any pause, the cut lies at the quietest point of this last part of the window."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class View:
    """What lies ahead: at most one window and the shortest silence beyond it."""

    power: np.ndarray
    """Power of each frame.  [frames]"""
    levels: np.ndarray
    """Smoothed level of each frame in dB relative to full scale.  [frames]"""
    pauses: list[tuple[int, int]]
    """Half-open intervals of frames without speech."""
    pause_before: int
    """Frames without speech right before the view."""
    follows_silence: bool
    """Whether the last span was silence, which then goes on where the view begins with a pause."""
    window: int
    """Longest span, in frames."""
    is_last: bool
    """Whether the recording ends with this view."""

    @property
    def num_frames(self) -> int:
        """Frames in view."""
        return self.power.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """End of a span."""

    frame: int
    kind: SegmentKind
    cut: CutKind


def next_cuts(view: View, config: SegmentationConfig) -> list[Cut]:
    """Decide how the next span ends, and the silence after it if it ends at one.

    Args:
        view: what lies ahead; at least one frame.
        config: what counts as a pause.

    Returns:
        One or two cuts, in order.
    """
    silence = _first_silence(view, config)
    if silence is not None and silence[0] == 0:
        return [_cut_after_silence(view, min(silence[1], view.window))]
    if silence is not None and silence[0] <= view.window:
        start, end = silence
        return [
            Cut(frame=start, kind="speech", cut="silence"),
            _cut_after_silence(view, min(end, start + view.window)),
        ]
    if view.is_last and view.num_frames <= view.window:
        return [Cut(frame=view.num_frames, kind=_kind(view, view.num_frames, config), cut="end")]
    frame = _best_pause(view, config)
    if frame is not None:
        return [Cut(frame=frame, kind=_kind(view, frame, config), cut="silence")]
    return [Cut(frame=_quietest(view, *_forced_range(view, config)), kind="speech", cut="forced")]


def _first_silence(view: View, config: SegmentationConfig) -> tuple[int, int] | None:
    """Find the first pause that is long and silent enough for a segment of its own, less the padding of speech.

    The rest of a silence longer than the window may be short.
    """
    padding = _frames(config.padding_s)
    for start, end in view.pauses:
        goes_on = view.follows_silence and start == 0
        if end - start < _frames(config.min_silence_s) and not goes_on:
            continue
        inner_start = start + padding if start > 0 else 0
        inner_end = end if view.is_last and end == view.num_frames else end - padding
        if inner_start < inner_end and _is_silent(view, (start, end), (inner_start, inner_end), config):
            return inner_start, inner_end
    return None


def _is_silent(view: View, pause: tuple[int, int], inner: tuple[int, int], config: SegmentationConfig) -> bool:
    """Say whether nobody speaks inside a pause.

    A speech model is believed about a long one. Else it must be inaudible, or as steady as noise is and speech is not;
    clicks are nobody.
    """
    num_frames = pause[1] - pause[0] + (view.pause_before if pause[0] == 0 else 0)
    if config.method == "speech" and num_frames >= min(_frames(config.sure_silence_s), view.window):
        return True
    levels, limit = view.levels[slice(*inner)], config.silence_dbfs
    if levels.size >= _frames(config.min_segment_s):
        limit = max(limit, float(np.median(levels)) + config.steady_db)
    is_rarely_louder = (levels > limit).mean() <= CLICK_SHARE
    return bool(is_rarely_louder) and find_pauses(levels, limit) == [(0, levels.size)]


def _cut_after_silence(view: View, frame: int) -> Cut:
    is_end = view.is_last and frame == view.num_frames
    return Cut(frame=frame, kind="silence", cut="end" if is_end else "silence")


def _kind(view: View, num_frames: int, config: SegmentationConfig) -> SegmentKind:
    """Tell a span that is one single pause, and silent, from speech."""
    is_pause = bool(view.pauses) and view.pauses[0][0] == 0 and view.pauses[0][1] >= num_frames
    return "silence" if is_pause and _is_silent(view, view.pauses[0], (0, num_frames), config) else "speech"


def _best_pause(view: View, config: SegmentationConfig) -> int | None:
    """Choose the pause that is long and late: long ones are safe to cut in, late ones fill the window."""
    good, first, last = _frames(config.good_pause_s), _frames(config.min_segment_s), _last_cut(view, config)
    best, best_score = None, 0.0
    for start, end in view.pauses:
        length = end - start
        margin = min(length // 8, _frames(config.padding_s))
        low, high = max(start + margin, first), min(end - margin, last)
        if length < _frames(config.min_pause_s) or low >= high:
            continue
        score = min(length, good) * high
        if score > best_score:
            best, best_score = (max(low, high - good), high), score
    return None if best is None else _quietest(view, *best)


def _last_cut(view: View, config: SegmentationConfig) -> int:
    """Return the last frame where a cut may lie: within the window, and not just before the recording's end."""
    rest = _frames(config.min_segment_s) if view.is_last else 0
    return min(view.window, view.num_frames - rest)


def _forced_range(view: View, config: SegmentationConfig) -> tuple[int, int]:
    last = _last_cut(view, config)
    return last - round(FORCED_SHARE * view.window), last


def _quietest(view: View, low: int, high: int) -> int:
    """Find the quietest frame of `[low, high)`; in the middle where several are equally quiet."""
    power = smooth(view.power, CUT_WIDTH_FRAMES)[low:high]
    quietest = np.flatnonzero(power == power.min())
    return low + int(quietest[quietest.size // 2])


def _frames(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES)
