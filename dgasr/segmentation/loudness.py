"""How loud a waveform is over time, and where it pauses. Energy only: no model, no spectrum."""

import numpy as np

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
