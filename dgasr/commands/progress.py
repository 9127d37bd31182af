"""How far a run is, on standard error: bars where a person is looking, one line per shard where not."""

import sys

from tqdm import tqdm

from dgasr.records import Segment, Shard
from dgasr.stages.decode import DecodedShard
from dgasr.stages.prepare import PreparedShard
from dgasr.stages.staging import Outcome


class Progress:
    """A watcher of `dgasr.stages.embedded` that writes to standard error."""

    def __init__(self) -> None:
        self._is_quiet = not sys.stderr.isatty()
        self._bar: tqdm[None] | None = None

    def begin_shard(self, shard: Shard) -> None:
        """Show a bar of recordings."""
        self._replace_bar("reading", len(shard.recordings), "recording")

    def recording_read(self, outcome: Outcome) -> None:
        """Advance it."""
        self._advance()

    def begin_decoding(self, prepared: PreparedShard) -> None:
        """Show a bar of segments."""
        self._replace_bar("decoding", prepared.num_segments, "segment")

    def segment_decoded(self, segment: Segment) -> None:
        """Advance it."""
        self._advance()

    def end_shard(self, decoded: DecodedShard) -> None:
        """Take the bar away and leave a line."""
        if self._bar is not None:
            self._bar.close()
        sys.stderr.write(decoded.line() + "\n")

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def _replace_bar(self, what: str, total: int, unit: str) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}s", leave=False, disable=self._is_quiet)
