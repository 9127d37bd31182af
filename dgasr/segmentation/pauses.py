"""Where a recording pauses: by how loud it is over time, and by how likely somebody speaks.

Levels are energy only. The speech model is silero-vad's small recurrent network, run by onnxruntime on one core; the
wheel's own code is not used: it needs torchaudio, and reads recordings whole.
"""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ

FRAME_SAMPLES = 160
"""Samples to a frame of level: 10 ms. Cuts lie between frames."""

SMOOTHING_FRAMES = 5
"""Frames averaged into a level, so that neither glottal pulses nor mains hum look like pauses."""

MIN_SOUND_FRAMES = 7
"""A shorter sound is a click: smoothing alone makes five frames of a single loud one."""

LOWEST_DBFS = -100.0
DIGITAL_SILENCE_DBFS = -80.0
"""Below this nothing was recorded: muted channels and joints say nothing of the background's level."""

MIN_RISE_DB = 3.0
"""Least distance of speech from the background; steady noise stays within it."""

BACKGROUND_PERCENTILE = 10
LOUDEST_FRAMES = 10
"""The speech's level is the one that this many frames reach: one word in a minute is enough."""


def frame_power(samples: np.ndarray) -> np.ndarray:
    """Compute the variance of each frame of a waveform, relative to full scale; a constant offset has none.

    [samples] → [frames], of which the last may be shorter than the others.
    """
    num_whole = samples.size // FRAME_SAMPLES
    frames = samples[: num_whole * FRAME_SAMPLES].reshape(num_whole, FRAME_SAMPLES)
    mean = frames.mean(axis=1, dtype=np.float64)
    power = np.einsum("ij,ij->i", frames, frames).astype(np.float64) / FRAME_SAMPLES - mean * mean
    rest = samples[num_whole * FRAME_SAMPLES :]
    if rest.size:
        power = np.append(power, rest.var(dtype=np.float64))
    return np.maximum(power, 0.0)


def smooth(power: np.ndarray, num_frames: int) -> np.ndarray:
    """Average each frame with its neighbours, with fewer of them at the ends.  Digital silence stays exactly zero."""
    if power.size < num_frames:
        return np.full(power.size, power.mean() if power.size else 0.0)
    box = np.ones(num_frames)
    return np.convolve(power, box, "same") / np.convolve(np.ones(power.size), box, "same")


def level_dbfs(power: np.ndarray) -> np.ndarray:
    """Turn power into smoothed levels in dB relative to full scale.  [frames]."""
    return 10.0 * np.log10(np.maximum(smooth(power, SMOOTHING_FRAMES), 10.0 ** (LOWEST_DBFS / 10.0)))


def pause_threshold_dbfs(levels: np.ndarray, pause_share: float) -> float:
    """Choose the level below which there is a pause, dB relative to full scale; infinite where nothing was recorded.

    It lies `pause_share` of the way up, in dB, from the background to the speech of smoothed levels, [frames].
    """
    heard = levels[levels > DIGITAL_SILENCE_DBFS]
    if heard.size < LOUDEST_FRAMES:
        return np.inf
    background = float(np.percentile(heard, BACKGROUND_PERCENTILE))
    loudest = float(np.partition(heard, -LOUDEST_FRAMES)[-LOUDEST_FRAMES])
    return background + max(MIN_RISE_DB, pause_share * (loudest - background))


def find_pauses(levels: np.ndarray, threshold_dbfs: float) -> list[tuple[int, int]]:
    """Find the half-open runs of frames that are not louder than the threshold; clicks do not interrupt them."""
    is_sound = levels > threshold_dbfs
    for start, end in runs(is_sound):
        # A run at either end may go on outside.
        if end - start < MIN_SOUND_FRAMES and start > 0 and end < levels.size:
            is_sound[start:end] = False
    return runs(~is_sound)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """List the half-open intervals where a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


WINDOW_SAMPLES = 512
"""New samples that the network hears at once: 32 ms."""

CONTEXT_SAMPLES = 64
"""Samples before them that it hears again."""

STATE_SHAPE = (2, 1, 128)
"""What it remembers from window to window."""

UNIT_SAMPLES = int(np.lcm(WINDOW_SAMPLES, FRAME_SAMPLES))
"""The shortest stretch of whole windows and whole frames."""

WEIGHTS = "silero_vad_16k_op15.onnx"
"""The file for 16 kHz alone: its shapes can be fixed, which makes it a third faster than the one for both rates."""

WEIGHTS_SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"
"""Other weights would put cuts elsewhere under the same recipe. Those of silero-vad 6.2.0 to 6.2.3 are these."""

REMEDY = "Run `make setup`, or cut by loudness alone: `--segmentation loudness`."


def with_probabilities(blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pass a recording on, with how likely somebody speaks in each frame.

    The network hears the same windows however the samples come in blocks, and memory does not depend on the
    recording's length. The last window is filled up with zeros.

    Args:
        blocks: the recording's samples at `SAMPLE_RATE_HZ` in order, blocks of any length.  [samples]

    Yields:
        Samples in order, [samples], and a probability for each of their frames of `FRAME_SAMPLES`, [frames]: that of
        the window which holds the frame's middle. All but the last are whole frames.

    Raises:
        ConfigError: see `load_network`.

    Source:
        Silero team, silero-vad (MIT): windows, context and state as its `OnnxWrapper` has them.
    """
    network = load_network()
    state, context = np.zeros(STATE_SHAPE, dtype=np.float32), np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
    rate_hz = np.array(SAMPLE_RATE_HZ, dtype=np.int64)
    for samples in _whole_units(blocks):
        num_windows = -(-samples.size // WINDOW_SAMPLES)
        filling = np.zeros(num_windows * WINDOW_SAMPLES - samples.size, dtype=np.float32)
        heard = np.concatenate([context, samples, filling])
        by_window = np.empty(num_windows, dtype=np.float32)
        for n in range(num_windows):
            window = heard[n * WINDOW_SAMPLES : (n + 1) * WINDOW_SAMPLES + CONTEXT_SAMPLES]
            output, state = network.run(None, {"input": window[None], "state": state, "sr": rate_hz})
            by_window[n] = output[0, 0]
        context = heard[-CONTEXT_SAMPLES:]
        middles = np.arange(-(-samples.size // FRAME_SAMPLES)) * FRAME_SAMPLES + FRAME_SAMPLES // 2
        yield samples, by_window[np.minimum(middles // WINDOW_SAMPLES, num_windows - 1)]


def find_speech(probabilities: np.ndarray, begin: float, end: float, *, is_speaking: bool) -> np.ndarray:
    """Tell frames with speech, by how likely somebody speaks in each; [frames] → [frames] bool.

    Two thresholds keep a probability near one of them from flickering: a stretch is speech that reaches `begin`
    somewhere, and stays at or above `end` throughout. Where there is speech just before the first frame, it may go on.
    """
    is_speech = probabilities >= end
    for first, last in runs(is_speech):
        goes_on = (first == 0 and is_speaking) or last == len(probabilities)
        if not goes_on and probabilities[first:last].max() < begin:
            is_speech[first:last] = False
    return is_speech


@lru_cache(maxsize=1)
def load_network() -> Any:
    """Load the network for one thread, once per process; ConfigError as `weights_path`."""
    path = weights_path()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # As many processes as cores read audio side by side; windows follow each other, so threads would only wait.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("batch", 1)
    options.add_free_dimension_override_by_name("sequence", CONTEXT_SAMPLES + WINDOW_SAMPLES)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def weights_path() -> Path:
    """Find the network's weights, without loading anything.

    ConfigError where onnxruntime or silero-vad is not installed, or has other weights.
    """
    for module, package in (("onnxruntime", "onnxruntime"), ("silero_vad", "silero-vad")):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"{package} is not installed, and the speech model needs it. {REMEDY}")
    spec = importlib.util.find_spec("silero_vad")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    path = next((file for folder in folders if (file := folder / "data" / WEIGHTS).is_file()), None)
    if path is None or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise ConfigError(f"The installed silero-vad has no {WEIGHTS}, or another one than this dgasr's. {REMEDY}")
    return path


def _whole_units(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass samples on in whole units of windows and frames; only the last may be shorter."""
    rest = np.zeros(0, dtype=np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        size = rest.size // UNIT_SAMPLES * UNIT_SAMPLES
        if size:
            yield rest[:size]
            rest = rest[size:]
    if rest.size:
        yield rest
