"""What a run did: the lake's rows of it in, a row of the lake and a few lines for a person out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dgasr.lake.commit import write_run
from dgasr.lake.rows import run_row
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages.process import peak_memory_bytes, versions_json

COUNTS = """
    select
        count(*), count(*) filter (status = 'partial'), count(*) filter (status = 'rejected'),
        coalesce(sum(num_segments), 0)::bigint, coalesce(sum(num_words), 0)::bigint,
        coalesce(sum(decoded_s), 0.0), coalesce(sum(speech_s), 0.0)
    from recordings
    where run_id = ?
"""

DEVICES = """
    select string_agg(distinct device, ', ' order by device) from runs where parent_run_id = ? and stage = 'decode'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What one execution did."""

    run_id: str
    recipe_id: str
    num_held: int
    """Recordings that the lake held already."""
    num_recordings: int
    """Recordings committed by this run."""
    num_partial: int
    num_rejected: int
    num_segments: int
    num_words: int
    audio_s: float
    """Audio committed by this run, s."""
    speech_s: float
    """Of it, what went through the model, s."""
    wall_s: float
    """Time from the run's begin to its end, s."""

    @property
    def rtfx(self) -> float:
        """Audio seconds per wall second."""
        return self.audio_s / self.wall_s if self.wall_s > 0 else 0.0

    def line(self) -> str:
        """Say it in one line."""
        if not self.num_recordings:
            return f"nothing new: the lake holds all {self.num_held} recordings"
        held = f", {self.num_held} more were in the lake already" if self.num_held else ""
        return (
            f"{self.num_recordings} recordings ({self.num_rejected} rejected, {self.num_partial} partial), "
            f"{self.audio_s / 60:.1f} min of audio in {self.wall_s:.1f} s, RTFx {self.rtfx:.1f}{held}"
        )


def summarise(lake_uri: str, run_id: str, recipe_id: str, num_held: int, wall_s: float) -> RunSummary:
    """Ask the lake what a run committed, so that retries and other workers count as they should.

    Args:
        lake_uri: the lake.
        run_id: the run.
        recipe_id: its recipe.
        num_held: recordings that the lake held before.
        wall_s: time from the run's begin until now, s.

    Returns:
        The run in figures.
    """
    row = connect(lake_uri).execute(COUNTS, [run_id]).fetchall()[0]
    return RunSummary(
        run_id=run_id, recipe_id=recipe_id, num_held=num_held, wall_s=wall_s,
        num_recordings=row[0], num_partial=row[1], num_rejected=row[2], num_segments=row[3], num_words=row[4],
        audio_s=row[5], speech_s=row[6],
    )  # fmt: skip


def commit_run(
    lake_uri: str,
    summary: RunSummary,
    recipe: Recipe,
    sources: Sequence[str],
    device: str,
    started_at: datetime,
    *,
    busy_share: float | None = None,
    num_attempts: int | None = None,
    gpu_hour_price: float | None = None,
) -> None:
    """Write the run's row, unless it did nothing.

    Args:
        lake_uri: lake of the run.
        summary: what it did.
        recipe: how it was done.
        sources: what was asked for.
        device: where the model ran.
        started_at: when the run began, with a time zone.
        busy_share: share of the time in which the model had work, where this process decoded.
        num_attempts: child runs that were started; `None` where there were none.
        gpu_hour_price: what an hour of the device costs, where it is known.
    """
    if not summary.num_recordings:
        return
    complete = summary.num_recordings - summary.num_partial - summary.num_rejected
    row = run_row(
        run_id=summary.run_id,
        recipe_id=summary.recipe_id,
        recipe_json=recipe.to_json(),
        versions_json=versions_json(),
        source=" ".join(sources),
        device=device,
        started_at=started_at,
        recordings={"ok": complete, "partial": summary.num_partial, "rejected": summary.num_rejected},
        num_segments=summary.num_segments,
        num_words=summary.num_words,
        audio_s=summary.audio_s,
        wall_s=summary.wall_s,
        peak_memory_bytes=peak_memory_bytes(),
        busy_share=busy_share,
        num_attempts=num_attempts,
        gpu_hour_price=gpu_hour_price,
    )
    write_run(lake_uri, row)


def decoding_devices(lake_uri: str, run_id: str) -> str:
    """Name the devices on which a run's children decoded; `none` where none did."""
    return connect(lake_uri).execute(DEVICES, [run_id]).fetchall()[0][0] or "none"
