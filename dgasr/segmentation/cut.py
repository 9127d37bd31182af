"""The cutter: blocks of samples in, spans with their samples out, looking one window and one silence ahead."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ, CutKind, SegmentKind
from dgasr.segmentation.config import SegmentationConfig
from dgasr.segmentation.loudness import FRAME_SAMPLES, find_pauses, frame_power, level_dbfs, pause_threshold_dbfs, runs
from dgasr.segmentation.plan import View, next_cuts
from dgasr.segmentation.speech import find_speech, with_probabilities


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
        ConfigError: the window is shorter than what `config` asks of a segment and its padding, or the speech model
            that `config` asks for is not installed.

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


def _frames(duration_s: float) -> int:
    return round(duration_s * SAMPLE_RATE_HZ / FRAME_SAMPLES)
