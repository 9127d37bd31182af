"""A child run in figures: who worked on an assignment in, a row of the lake's `runs` out. Knows no flow."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dgasr.lake.commit import write_run
from dgasr.lake.rows import run_row
from dgasr.recipe import Recipe
from dgasr.stages.decode import DecodedAssignment
from dgasr.stages.prepare import PreparedAssignment
from dgasr.stages.process import peak_memory_bytes, versions_json, worker_name
from dgasr.stages.run_folder import Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildRun:
    """Who does what: one attempt of one stage on one assignment.

    Attributes:
        lake_uri: the lake.
        parent_run_id: the whole run.
        stage: what is done.
        number: the assignment's position among those of its run.
        attempt: which attempt this is, from 1.
        assignment_uri: the assignment.
        started_at: when it began, with a time zone.
    """

    lake_uri: str
    parent_run_id: str
    stage: Stage
    number: int
    attempt: int
    assignment_uri: str
    started_at: datetime

    @property
    def run_id(self) -> str:
        """Name of the child run in the lake."""
        return f"{self.parent_run_id}-{self.stage}-{self.number:05d}-{self.attempt}"


def commit_prepare_run(child: ChildRun, recipe: Recipe, prepared: PreparedAssignment) -> None:
    """Write the row of a child run that read audio; its counts are of what it read, not of what was committed."""
    complete = prepared.num_recordings - prepared.num_rejected
    _commit(
        child,
        recipe,
        device="cpu",
        recordings={"ok": complete, "rejected": prepared.num_rejected},
        num_segments=prepared.num_segments,
        num_words=0,
        audio_s=prepared.audio_s,
        wall_s=prepared.wall_s,
    )


def commit_decode_run(
    child: ChildRun, recipe: Recipe, decoded: DecodedAssignment, device: str, gpu_hour_price: float
) -> None:
    """Write the row of a child run that decoded.

    Args:
        child: the child run.
        recipe: what it followed.
        decoded: what it did.
        device: where its model ran.
        gpu_hour_price: what an hour of it costs; 0 where nobody said.
    """
    complete = decoded.num_recordings - decoded.num_partial - decoded.num_rejected
    _commit(
        child,
        recipe,
        device=device,
        recordings={"ok": complete, "partial": decoded.num_partial, "rejected": decoded.num_rejected},
        num_segments=decoded.num_segments,
        num_words=decoded.num_words,
        audio_s=decoded.audio_s,
        wall_s=decoded.wall_s,
        busy_share=decoded.busy_share,
        gpu_hour_price=gpu_hour_price or None,
    )


def _commit(child: ChildRun, recipe: Recipe, **figures: Any) -> None:
    row = run_row(
        run_id=child.run_id,
        recipe_id=recipe.recipe_id,
        recipe_json=recipe.to_json(),
        versions_json=versions_json(),
        source=child.assignment_uri,
        started_at=child.started_at,
        peak_memory_bytes=peak_memory_bytes(),
        stage=child.stage,
        parent_run_id=child.parent_run_id,
        worker=worker_name(),
        num_attempts=child.attempt,
        **figures,
    )
    write_run(child.lake_uri, row)
