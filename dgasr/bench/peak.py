"""The most memory that was in use at once: of a GPU, or of this process where there is none."""

from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

_PEAK_RESIDENT = "5"
"""What Linux is told in order to count its peak of resident memory anew; see proc(5)."""


class PeakMemory:
    """Counts from the moment it is made; what was in use by then is in it.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._counts = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            _CLEAR.write_text(_PEAK_RESIDENT, encoding="ascii")
        except OSError:
            self._counts = False

    def bytes(self) -> int | None:
        """Give the peak so far; `None` where the system does not count it."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if not self._counts:
            return None
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
