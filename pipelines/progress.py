"""How far a run is, for whoever looks at it in Prefect: one progress artifact that grows. Never worth failing for."""

import logging
import time
from collections.abc import Callable
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException

from dgasr.stages.beat import Beating
from pipelines.tally import Tally

logger = logging.getLogger(__name__)

KEY = "transcribe-progress"

INTERVAL_S = 30.0
"""Least time between two updates, s: each is a row of the server's."""


class Progress:
    """Shows how far a run is, in an artifact and in the parent's beat."""

    def __init__(self, beating: Beating, now: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet.

        Args:
            beating: beats for the parent.
            now: a clock that never goes back, s.
        """
        self._beating = beating
        self._now = now
        self._artifact_id: UUID | None = None
        self._shown = ""
        self._shown_at = 0.0

    async def show(self, tally: Tally) -> None:
        """Show how far the run is, if something changed and the last time is long enough ago."""
        line = tally.line()
        is_over = tally.num_done + tally.num_failed == tally.num_assignments
        if line == self._shown or (self._shown and not is_over and self._now() - self._shown_at < INTERVAL_S):
            return
        self._shown, self._shown_at = line, self._now()
        logger.info(line)
        self._beating.say(line)
        percent = 100 * tally.num_done / max(tally.num_assignments, 1)
        try:
            if self._artifact_id is None:
                self._artifact_id = await acreate_progress_artifact(percent, key=KEY, description=line)
            else:
                await aupdate_progress_artifact(self._artifact_id, percent, description=line)
        except (httpx.HTTPError, PrefectException) as error:
            logger.warning("progress is not shown: %r", error)
