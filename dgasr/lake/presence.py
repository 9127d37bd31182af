"""Which objects of an archive the lake knows, and which of them are gone, by what runs noticed. Knows no source."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from dgasr.lake.commits import READ_THREADS
from dgasr.lake.datasets import read_part
from dgasr.lake.location import open_lake
from dgasr.lake.snapshot import snapshot


def known_rows(lake_uri: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the recordings of all recipes, part by part; a recording may come several times.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        columns: columns of `recordings` that are wanted.

    Raises:
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer.
    """
    yield from _read(lake_uri, "recordings", columns)


def absent_uris(lake_uri: str) -> set[str]:
    """List the objects that were last noticed to be gone; raises as `known_rows` does."""
    tables = list(_read(lake_uri, "presence", ("uri", "event", "noticed_at")))
    if not tables:
        return set()
    events = pa.concat_tables(tables).sort_by("noticed_at")
    last = dict(zip(events["uri"].to_pylist(), events["event"].to_pylist(), strict=True))
    return {uri for uri, event in last.items() if event == "deleted"}


def _read(lake_uri: str, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    found = snapshot(open_lake(lake_uri), (table,))
    with ThreadPoolExecutor(READ_THREADS) as pool:
        yield from pool.map(partial(read_part, found.lake, columns=columns), found.parts[table])
