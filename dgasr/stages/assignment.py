"""Assignments: the shards that one worker works through with its model loaded once. Written once, passed on by URI."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

from dgasr.errors import ConfigError
from dgasr.records import Shard
from dgasr.stages.outcome import recording_from_json, recording_to_json
from dgasr.store import objects


def write_assignments(shards: Iterable[Shard], folder_uri: str, shards_per_assignment: int) -> Iterator[str]:
    """Write shards down in groups.

    Args:
        shards: what is to be done; taken lazily.
        folder_uri: where the assignments go.
        shards_per_assignment: how many shards one worker takes at once.

    Yields:
        The URI of each assignment as soon as it is written.
    """
    if shards_per_assignment < 1:
        raise ConfigError(f"shards_per_assignment is {shards_per_assignment}: an assignment holds 1 shard or more.")
    remaining = iter(shards)
    number = 0
    while group := list(islice(remaining, shards_per_assignment)):
        uri = f"{folder_uri}/{number:05d}.json"
        rows = [
            {"shard_id": shard.shard_id, "recordings": [recording_to_json(r) for r in shard.recordings]}
            for shard in group
        ]
        objects.write_bytes(uri, json.dumps(rows, indent=1).encode())
        yield uri
        number += 1


def read_assignment(uri: str) -> list[Shard]:
    """Read the shards of an assignment."""
    return [
        Shard(shard_id=row["shard_id"], recordings=tuple(recording_from_json(r) for r in row["recordings"]))
        for row in json.loads(objects.read_bytes(uri))
    ]
