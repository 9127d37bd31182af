"""What one run is asked to do, settled once: every stage and every child run follows the same values."""

from dataclasses import dataclass
from datetime import UTC, datetime

from dgasr.lake.location import lake_uri_of
from dgasr.recipe import Recipe
from dgasr.stages.embedded import new_run_id
from dgasr.stages.engine import recipe_of
from dgasr.stages.engine_config import EngineConfig
from dgasr.stages.plan import ShardConfig
from dgasr.stages.run_folder import RunFolder
from dgasr.stages.selection import Selection
from pipelines.pools import PoolsConfig


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
    def folder(self) -> RunFolder:
        """Where the run keeps what its child runs need."""
        return RunFolder(lake_uri=self.lake_uri, run_id=self.run_id)

    @property
    def sources(self) -> tuple[str, ...]:
        """What was asked for, for the run's row and for messages."""
        selection = self.selection
        listed = () if selection.uri_list is None else (selection.uri_list,)
        return (*selection.sources, *selection.uris, *listed)


def new_request(
    selection: Selection, lake: str, engine: EngineConfig, shard: ShardConfig, pools: PoolsConfig
) -> RunRequest:
    """Settle what a new run does; loads no model.

    Raises:
        ConfigError: no such model, adapter or language, or the lake's URI is none.
    """
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
