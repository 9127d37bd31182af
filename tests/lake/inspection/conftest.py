"""A sound lake, and one into which faults are planted."""

import shutil
from pathlib import Path

import pytest

from dgasr.lake import parts
from dgasr.lake.parts import commit_shard
from dgasr.store import objects

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lake-2026-11-21"


@pytest.fixture
def lake(tmp_path):
    """A sound lake of two shards and a run, not merged."""
    shutil.copytree(FIXTURE, tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def plant(tmp_path, make_shard, monkeypatch):
    """Commit a shard whose rows were changed, as a program with a fault would."""
    monkeypatch.setattr(parts, "check_shard", lambda rows: None)

    def commit(change) -> Path:
        rows = make_shard()
        change(rows)
        commit_shard(objects, str(tmp_path / "lake"), rows)
        return tmp_path / "lake"

    return commit
