"""How far a run is, on standard error: bars where a person is looking, one line per shard where not."""

import sys

from tqdm import tqdm

from dgasr.records import Shard
from dgasr.stages.counts import Counts
from dgasr.stages.heartbeat import Progress


class ProgressBars(Progress):
    """Shows on standard error how far `dgasr.stages.embedded` is."""

    def __init__(self) -> None:
        self._is_quiet = not sys.stderr.isatty()
        self._bar = tqdm(disable=True)

    def begin_reading(self, shard: Shard) -> None:
        """Show a bar of recordings."""
        self._show_bar("reading", len(shard.recordings), "recording")

    def recording_read(self) -> None:
        """Advance it."""
        self._bar.update()

    def begin_decoding(self, shard: Shard, num_segments: int) -> None:
        """Show a bar of segments."""
        self._show_bar("decoding", num_segments, "segment")

    def segment_decoded(self) -> None:
        """Advance it."""
        self._bar.update()

    def end_shard(self, shard_id: str, counts: Counts) -> None:
        """Take the bar away and leave a line."""
        self._bar.close()
        sys.stderr.write(f"shard {shard_id}: {counts.line()}\n")

    def _show_bar(self, what: str, total: int, unit: str) -> None:
        self._bar.close()
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}s", leave=False, disable=self._is_quiet)
