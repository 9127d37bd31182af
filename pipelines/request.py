"""What one run is asked to do, settled once, and how it is spread over machines.

Every stage and every child run follows the same values. Knows no Prefect.
"""

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Literal

from dgasr.errors import ConfigError
from dgasr.lake.location import lake_uri_of
from dgasr.recipe import Recipe
from dgasr.records import settings
from dgasr.stages.engine import EngineConfig, recipe_of
from dgasr.stages.plan import AssignmentConfig, RunFolder, ShardConfig, new_run_id
from dgasr.stages.selection import Selection

Mode = Literal["here", "pools"]


@settings
class PoolsConfig:
    """Where a run's work is done, and when a child run is given up.

    Attributes:
        mode: `here`: in the parent's process; `pools`: as child runs on the work pools.
        prepare_deployment: deployment that reads audio, `flow/deployment`.
        decode_deployment: deployment that turns features into text, `flow/deployment`.
        queue: work queue of both pools that the child runs wait in; the daily run's comes before the backfill's.
        assignment: how much one child run works through, 5 to 30 minutes of a GPU's time.
        prepare_processes: processes that read audio side by side in one child run.
        max_prepare_runs: most child runs that read audio at once.
        max_decode_runs: most child runs that decode at once.
        max_staged_bytes: estimated features in the store that wait for a decoder, at most; one assignment always may.
        max_attempts: child runs that an assignment gets for each stage before the run goes on without it.
        queue_deadline_s: a child run that no worker took by then is submitted again, s.
        start_deadline_s: a child run that a worker took but that does not run by then is given up, s.
        heartbeat_deadline_s: a running child run whose heartbeat stood still for so long is given up, s.
        stall_deadline_s: a running child run that lives but got no further for so long is given up, s.
        cancel_deadline_s: a child run given up that has not ended by then is marked as crashed, s.
        server_deadline_s: the run ends when Prefect's server or the store did not answer for so long, s.
        poll_s: time between two looks at the child runs, s.
        gpu_hour_price: price of an hour of a decode run, in whatever currency the report is read.
    """

    mode: Mode = "here"
    prepare_deployment: str = "prepare/cpu"
    decode_deployment: str = "decode/gpu"
    queue: str = "daily"
    assignment: AssignmentConfig = field(default_factory=AssignmentConfig)
    prepare_processes: int = 4
    max_prepare_runs: int = 4
    max_decode_runs: int = 4
    max_staged_bytes: int = 40_000_000_000
    max_attempts: int = 3
    queue_deadline_s: float = 21_600.0
    start_deadline_s: float = 600.0
    heartbeat_deadline_s: float = 180.0
    stall_deadline_s: float = 3600.0
    cancel_deadline_s: float = 90.0
    server_deadline_s: float = 900.0
    poll_s: float = 15.0
    gpu_hour_price: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would ever run, and names that name no deployment."""
        counts = ("prepare_processes", "max_prepare_runs", "max_decode_runs", "max_staged_bytes", "max_attempts")
        times = tuple(own.name for own in fields(self) if own.name.endswith("_s"))
        for name in (*counts, *times):
            if getattr(self, name) <= 0:
                raise ConfigError(f"PoolsConfig: {name}={getattr(self, name)} must be above 0.")
        if self.gpu_hour_price < 0:
            raise ConfigError(f"PoolsConfig: gpu_hour_price={self.gpu_hour_price} must not be negative.")
        for name in (self.prepare_deployment, self.decode_deployment):
            if name.count("/") != 1 or name.startswith("/") or name.endswith("/"):
                raise ConfigError(
                    f"PoolsConfig: {name!r} names no deployment. Write it as flow/deployment: decode/gpu."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What one run is asked to do.

    Attributes:
        selection: which recordings.
        lake_uri: the lake, absolute.
        engine: which model transcribes, and how.
        shard: how much is committed at once.
        pools: where the work is done.
        recipe: the recipe that the engine follows.
        run_id: the run; also the name of its folder.
        started_at: when it began, UTC.
    """

    selection: Selection
    lake_uri: str
    engine: EngineConfig
    shard: ShardConfig
    pools: PoolsConfig
    recipe: Recipe
    run_id: str
    started_at: datetime

    @property
    def is_here(self) -> bool:
        """Whether this process does the work itself."""
        return self.pools.mode == "here"

    @property
    def folder(self) -> RunFolder:
        """Where the run keeps what its child runs need."""
        return RunFolder(lake_uri=self.lake_uri, run_id=self.run_id)


def new_request(
    selection: Selection, lake: str, engine: EngineConfig, shard: ShardConfig, pools: PoolsConfig
) -> RunRequest:
    """Settle what a new run does; loads no model. ConfigError where there is no such model, language or lake."""
    started_at = datetime.now(UTC)
    return RunRequest(
        selection=selection.starting_at(started_at),
        lake_uri=lake_uri_of(lake),
        engine=engine,
        shard=shard,
        pools=pools,
        recipe=recipe_of(engine),
        run_id=new_run_id(),
        started_at=started_at,
    )
