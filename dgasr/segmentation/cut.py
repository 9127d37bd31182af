"""The cutter: blocks of samples in, spans with their samples out, looking one window and one silence ahead."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ, CutKind, SegmentKind
from dgasr.segmentation.config import SegmentationConfig
from dgasr.segmentation.loudness import FRAME_SAMPLES, find_pauses, frame_power, level_dbfs, pause_threshold_dbfs
from dgasr.segmentation.plan import View, next_cuts


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
    """Cut a recording into spans of at most one window, where it pauses if it does.

    Each step looks at one window and the shortest silence beyond it, never at more: the spans do not depend on how the
    samples come in blocks, and memory does not depend on the recording's length.

    Args:
        blocks: the recording's samples in order, blocks of any length.  [samples]
        window_samples: longest span the encoder takes.
        config: what counts as a pause.

    Yields:
        Spans that follow each other without gap from the first sample to the last, with their samples.

    Raises:
        ConfigError: the window is shorter than what `config` asks of a segment and its padding.

    Source:
        Ours.
    """
    window, lookahead = window_samples // FRAME_SAMPLES, _frames(config.min_silence_s + config.padding_s)
    if window < 2 * _frames(config.min_segment_s):
        raise ConfigError(
            f"A window of {window_samples} samples cannot hold two segments of min_segment_s={config.min_segment_s}: "
            "lower min_segment_s in the segmentation config."
        )
    num_history = max(0, _frames(config.context_s) - window - lookahead)
    source, history, start = iter(blocks), np.zeros(0), 0
    pending = np.zeros(0, dtype=np.float32)
    while (pending := _filled(pending, source, (window + lookahead) * FRAME_SAMPLES)).size:
        visible = pending[: (window + lookahead) * FRAME_SAMPLES]
        power = frame_power(np.array(visible))
        view = _view(power, history, window, is_last=visible.size < (window + lookahead) * FRAME_SAMPLES, config=config)
        done = 0
        for cut in next_cuts(view, config):
            end = min(cut.frame * FRAME_SAMPLES, visible.size)
            yield (
                Span(start_sample=start + done, end_sample=start + end, kind=cut.kind, cut=cut.cut),
                visible[done:end],
            )
            done = end
        history = np.append(history, power[: -(-done // FRAME_SAMPLES)])[-num_history:] if num_history else history
        start, pending = start + done, pending[done:]


def _view(power: np.ndarray, history: np.ndarray, window: int, *, is_last: bool, config: SegmentationConfig) -> View:
    """Measure what lies ahead against what lies around it."""
    surroundings = level_dbfs(np.concatenate((history, power)))
    levels = surroundings[history.size :]
    pauses = find_pauses(levels, pause_threshold_dbfs(surroundings, config.pause_share))
    return View(power=power, levels=levels, pauses=pauses, window=window, is_last=is_last)


def _filled(pending: np.ndarray, source: Iterator[np.ndarray], num_samples: int) -> np.ndarray:
    """Append blocks until there are `num_samples` samples, or no more blocks."""
    parts, size = [pending], pending.size
    while size < num_samples and (block := next(source, None)) is not None:
        parts.append(block)
        size += block.size
    return np.concatenate(parts) if len(parts) > 1 else pending


def _frames(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES)
