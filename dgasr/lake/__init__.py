"""The lake: rows of recordings, segments and runs as Parquet, committed shard by shard, read through DuckDB."""
