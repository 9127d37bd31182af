"""What DuckDB reads parts through: read-only, and right whichever of its threads asks."""

import threading
from contextlib import closing
from pathlib import Path

import pytest

from dgasr.lake.files import LakeFiles
from dgasr.lake.location import open_lake


@pytest.fixture
def files(tmp_path: Path) -> LakeFiles:
    (tmp_path / "part").write_bytes(bytes(range(100)))
    return LakeFiles(open_lake(str(tmp_path)), {"part": 100})


def test_threads_that_share_a_file_have_their_own_positions_in_it(files):
    with closing(files.open("lake://part")) as part:
        part.seek(10)
        other = threading.Thread(target=lambda: (part.seek(50), part.read(20)))
        other.start()
        other.join()
        assert part.read(3) == bytes([10, 11, 12])


def test_a_file_ends_where_the_listing_says(files):
    with closing(files.open("lake://part")) as part:
        part.seek(-2, 2)
        assert (part.tell(), part.read(), part.read(1)) == (98, bytes([98, 99]), b"")


def test_what_is_no_part_is_not_opened_and_no_part_is_written(files):
    with pytest.raises(FileNotFoundError, match="is no part that readers see"):
        files.open("lake://other")
    with pytest.raises(PermissionError, match="never writes"):
        files.open("lake://part", "wb")
