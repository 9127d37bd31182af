"""The lake: rows as Parquet, committed shard by shard, read through DuckDB; `connect(uri)` opens one for questions."""

from typing import Any

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    # DuckDB is loaded where somebody asks a question, not where a row is declared.
    if name in __all__:
        from dgasr.lake import views

        return getattr(views, name)
    raise AttributeError(f"module 'dgasr.lake' has no attribute {name!r}")
