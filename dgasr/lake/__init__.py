"""The lake: rows in Delta tables, committed shard by shard, read through DuckDB.

`connect(uri)` opens one for questions; `part_uris(uri)` lists its Parquet files for readers that know no Delta Lake.
"""

from importlib import import_module
from typing import Any

OWNERS = {"connect": "dgasr.lake.views", "part_uris": "dgasr.lake.views"}
"""Module of each name that this package offers."""

__all__ = ["connect", "part_uris"]


def __getattr__(name: str) -> Any:
    # DuckDB is loaded where somebody asks a question, not where a row is declared.
    if name in OWNERS:
        return getattr(import_module(OWNERS[name]), name)
    raise AttributeError(f"module 'dgasr.lake' has no attribute {name!r}")
