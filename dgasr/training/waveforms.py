"""Training audio, read as transcription reads it, and kept as long as a bounded store has room. Knows no text."""

from collections import OrderedDict

import numpy as np

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ConfigError, RecordingError

STORE_BYTES = 2 << 30
"""Waveforms kept at most, 9 hours of 16 kHz float32: a corpus of digits fits whole, and a large one leaves room for the
model on a small machine."""


class WaveformStore:
    """Waveforms of whole files, the least recently used ones dropped first.

    Args:
        max_bytes: of all waveforms kept; one longer than that is read and not kept.
    """

    def __init__(self, max_bytes: int = STORE_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._waveforms: OrderedDict[str, np.ndarray] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """Bytes of the waveforms that are kept."""
        return self._bytes

    def read(self, path: str) -> np.ndarray:
        """Return a file's samples, mono, float32, 16 kHz.  [samples]

        Args:
            path: of a file in any container that can be transcribed.

        Raises:
            ConfigError: it cannot be read to its end.
        """
        known = self._waveforms.get(path)
        if known is not None:
            self._waveforms.move_to_end(path)
            return known
        waveform = _decode(path)
        self._waveforms[path] = waveform
        self._bytes += waveform.nbytes
        while self._bytes > self._max_bytes:
            _, dropped = self._waveforms.popitem(last=False)
            self._bytes -= dropped.nbytes
        return waveform


def _decode(path: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.concatenate(list(open_audio(file, path, AudioConfig()).blocks()))
    except (OSError, RecordingError) as error:
        raise ConfigError(
            f"{path}: the manifest names it, but it cannot be read to its end ({error}). Leave it out of the manifest."
        ) from error
