"""Questions to the lake of three recordings."""

from collections.abc import Callable, Iterator

import pytest

from dgasr.lake.views import connect


@pytest.fixture(scope="module")
def small(small_lake: str) -> Iterator[Callable[[str], list[tuple]]]:
    """Function that asks it."""
    with connect(small_lake) as connection:
        yield lambda query: connection.execute(query).fetchall()
