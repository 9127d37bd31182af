"""Where a run keeps what its children need: recipe, assignments, beats. Names URIs; knows no flow.

{lake}/staging/runs/{run_id}/recipe.json                              written once, by the parent
                             assignments/{number}.json                likewise
                             beats/{stage}-{number}-{attempt}.json    by the child that works on it
                             beats/parent.json
"""

from dataclasses import dataclass
from typing import Literal

from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.store import objects

Stage = Literal["prepare", "decode"]
"""What a child run does."""


def staged_uri_of(lake_uri: str, recipe_id: str, shard: Shard) -> str:
    """Say where a shard's staged part lies."""
    return f"{lake_uri}/staging/{recipe_id}/{shard.shard_id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """The control folder of one run."""

    lake_uri: str
    run_id: str

    @property
    def uri(self) -> str:
        """The folder."""
        return f"{self.lake_uri}/staging/runs/{self.run_id}"

    @property
    def assignments_uri(self) -> str:
        """Folder of the assignments."""
        return f"{self.uri}/assignments"

    @property
    def parent_beat_uri(self) -> str:
        """Where the parent's beat lies."""
        return f"{self.uri}/beats/parent.json"

    def beat_uri(self, stage: Stage, number: int, attempt: int) -> str:
        """Say where the beat of a child lies: its stage, its assignment's number, and which attempt it is."""
        return f"{self.uri}/beats/{stage}-{number:05d}-{attempt}.json"

    def write_recipe(self, recipe: Recipe) -> str:
        """Write down what all children follow, and return its URI."""
        uri = f"{self.uri}/recipe.json"
        objects.write_bytes(uri, recipe.to_json().encode())
        return uri

    def read_recipe(self) -> Recipe:
        """Read what all children follow.

        Raises:
            ConfigError: another version of dgasr wrote it.
            ObjectMissingError: the run is over, or never began.
        """
        return Recipe.from_json(objects.read_bytes(f"{self.uri}/recipe.json").decode())

    def delete(self) -> None:
        """Remove the folder once the run has ended."""
        for uri in list(objects.list_uris(f"{self.uri}/")):
            objects.delete(uri)
