"""The cutter: blocks of samples in, spans with their samples out, looking one window and one silence ahead.

`SegmentationConfig` says what counts as a pause, `cut_at_silence` walks through the recording, and `next_cuts` decides
where a span ends, from levels and pauses ahead.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ, CutKind, SegmentKind, settings
from dgasr.segmentation.pauses import (
    FRAME_SAMPLES,
    find_pauses,
    find_speech,
    frame_power,
    level_dbfs,
    pause_threshold_dbfs,
    runs,
    smooth,
    with_probabilities,
)

SegmentationMethod = Literal["speech", "loudness"]


@settings
class SegmentationConfig:
    """What counts as a pause, and which pauses become cuts.

    Attributes:
        method: what tells pauses: a `speech` model, with loudness for the exact place of a cut, or `loudness` alone.
        min_silence_s: a silence at least this long, and longer than twice the padding, becomes a segment of its own,
            which is not decoded.
        loudness_padding_s: context that speech keeps on either side of such a silence, by loudness alone.
        speech_padding_s: the same by the speech model, which is later than loudness at the first sound of a word.
        min_pause_s: a shorter dip in level is no place to cut.
        good_pause_s: a longer pause is no better place to cut than one of this length.
        min_segment_s: no cut leaves less than this on either side, where that can be avoided.
        context_s: stretch of audio around a segment by which pauses are told from speech.
        pause_share: a pause lies below this share of the way from the background's level to the speech's, in dB.
        silence_dbfs: a silence may be told by level alone below this, dB relative to full scale.
        steady_db: else it must be steady: nothing but clicks in it further than this above its median. White noise
            stays within 1 dB, pink noise within 2 dB; of read speech hardly any 2 s do.
        speech_begin: probability that a stretch must reach somewhere to count as speech.
        speech_end: probability below which speech ends.
        sure_silence_s: a pause this long is silence by the speech model's word alone; a shorter one only if
            it is silent by level too.
    """

    method: SegmentationMethod = "speech"
    min_silence_s: float = 2.0
    loudness_padding_s: float = 0.2
    speech_padding_s: float = 0.4
    min_pause_s: float = 0.1
    good_pause_s: float = 0.5
    min_segment_s: float = 1.0
    context_s: float = 20.0
    pause_share: float = 0.3
    silence_dbfs: float = -70.0
    steady_db: float = 4.0
    speech_begin: float = 0.3
    speech_end: float = 0.1
    sure_silence_s: float = 6.0

    def __post_init__(self) -> None:
        if self.method not in get_args(SegmentationMethod):
            raise ConfigError(f"--segmentation {self.method}: choose {' or '.join(get_args(SegmentationMethod))}.")

    @property
    def padding_s(self) -> float:
        """Context that speech keeps on either side of a silence."""
        return self.speech_padding_s if self.method == "speech" else self.loudness_padding_s


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
    """Decide how the next span ends, and the silence after it if it ends at one: one or two cuts, in order."""
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
    last = _last_cut(view, config)
    return [Cut(frame=_quietest(view, last - round(FORCED_SHARE * view.window), last), kind="speech", cut="forced")]


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


def _quietest(view: View, low: int, high: int) -> int:
    """Find the quietest frame of `[low, high)`; in the middle where several are equally quiet."""
    power = smooth(view.power, CUT_WIDTH_FRAMES)[low:high]
    quietest = np.flatnonzero(power == power.min())
    return low + int(quietest[quietest.size // 2])


def _frames(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Samples `[start_sample, end_sample)` of a recording, at most one encoder window long."""

    start_sample: int
    end_sample: int
    kind: SegmentKind
    cut: CutKind


def cut_at_silence(
    blocks: Iterable[np.ndarray], window_samples: int, config: SegmentationConfig
) -> Iterator[tuple[Span, np.ndarray]]:
    """Cut a recording into spans of at most one window, where it pauses if it does; the method is ours.

    Each step looks at one window and the shortest silence beyond it, never at more: the spans do not depend on how the
    samples come in blocks, and memory does not depend on the recording's length.

    Spans, with their samples, follow each other without gap from the first sample to the last. ConfigError where the
    window is shorter than what `config` asks of a segment and its padding, or the speech model that it asks for is not
    installed.
    """
    window, lookahead = window_samples // FRAME_SAMPLES, _frames(config.min_silence_s + config.padding_s)
    if window < 2 * _frames(config.min_segment_s):
        raise ConfigError(
            f"A window of {window_samples} samples cannot hold two segments of min_segment_s={config.min_segment_s}: "
            "lower min_segment_s in the segmentation config."
        )
    num_history = max(0, _frames(config.context_s) - window - lookahead)
    ahead, history, start = _Ahead(blocks, config), np.zeros(0), 0
    pause_before, follows_silence = 0, False
    while (visible := ahead.see((window + lookahead) * FRAME_SAMPLES)).size:
        power = frame_power(np.array(visible))
        surroundings = level_dbfs(np.concatenate((history, power)))
        levels = surroundings[history.size :]
        if config.method == "speech":
            probabilities = ahead.probabilities[: power.size]
            is_speech = find_speech(
                probabilities, config.speech_begin, config.speech_end, is_speaking=start > 0 and not pause_before
            )
            pauses = runs(~is_speech)
        else:
            pauses = find_pauses(levels, pause_threshold_dbfs(surroundings, config.pause_share))
        view = View(
            power=power,
            levels=levels,
            pauses=pauses,
            pause_before=pause_before,
            follows_silence=follows_silence,
            window=window,
            is_last=visible.size < (window + lookahead) * FRAME_SAMPLES,
        )
        done = 0
        for cut in next_cuts(view, config):
            end = min(cut.frame * FRAME_SAMPLES, visible.size)
            yield (
                Span(start_sample=start + done, end_sample=start + end, kind=cut.kind, cut=cut.cut),
                visible[done:end],
            )
            done, follows_silence = end, cut.kind == "silence"
        num_done = -(-done // FRAME_SAMPLES)
        history = np.append(history, power[:num_done])[-num_history:] if num_history else history
        pause_before = _pause_at(num_done, view)
        start += done
        ahead.drop(done)


class _Ahead:
    """Samples that no span holds yet and, where a speech model is asked, how likely each frame of them is speech."""

    def __init__(self, blocks: Iterable[np.ndarray], config: SegmentationConfig) -> None:
        none = np.zeros(0, dtype=np.float32)
        self._samples, self.probabilities = none, none
        self._source = with_probabilities(blocks) if config.method == "speech" else ((block, none) for block in blocks)

    def see(self, num_samples: int) -> np.ndarray:
        """Look at the next `num_samples` samples, or all that are left."""
        parts, size = [(self._samples, self.probabilities)], self._samples.size
        while size < num_samples and (part := next(self._source, None)) is not None:
            parts.append(part)
            size += part[0].size
        if len(parts) > 1:
            self._samples, self.probabilities = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return self._samples[:num_samples]

    def drop(self, num_samples: int) -> None:
        """Forget the first samples, whole frames of them unless they are the last."""
        self._samples = self._samples[num_samples:]
        self.probabilities = self.probabilities[-(-num_samples // FRAME_SAMPLES) :]


def _pause_at(frame: int, view: View) -> int:
    """Say how long a pause has lasted where a cut lies, in frames; 0 where none has."""
    for start, end in view.pauses:
        if start < frame <= end:
            return frame - start + (view.pause_before if start == 0 else 0)
    return 0
