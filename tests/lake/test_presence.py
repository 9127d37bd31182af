from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.commit import append_rows
from dgasr.lake.ledger import absent_uris
from dgasr.lake.rows import presence_rows


def note(lake: str, event: str, at: datetime, *uris: str) -> None:
    rows = presence_rows([(uri, None) for uri in uris], event, noticed_at=at, run_id=f"run{at:%H%M%S}")
    append_rows(lake, "presence", rows)


def test_nothing_is_absent_from_a_lake_that_is_not_there(tmp_path: Path):
    assert absent_uris(f"{tmp_path}/none") == set()


def test_what_was_last_seen_to_be_gone_is_absent(empty_lake: str, day: datetime):
    note(empty_lake, "deleted", day, "/a/one.wav", "/a/two.wav")
    assert absent_uris(empty_lake) == {"/a/one.wav", "/a/two.wav"}


def test_what_came_back_is_not_absent_until_it_is_gone_again(empty_lake: str, day: datetime):
    hours = [day + timedelta(hours=hour) for hour in range(3)]
    note(empty_lake, "deleted", hours[0], "/a/one.wav", "/a/two.wav")
    note(empty_lake, "returned", hours[1], "/a/one.wav")
    assert absent_uris(empty_lake) == {"/a/two.wav"}
    note(empty_lake, "deleted", hours[2], "/a/one.wav")
    assert absent_uris(empty_lake) == {"/a/one.wav", "/a/two.wav"}


def test_it_is_read_from_s3_too(s3_lake: str, day: datetime):
    note(s3_lake, "deleted", day, "s3://a/one.wav")
    assert absent_uris(s3_lake) == {"s3://a/one.wav"}


def test_a_part_that_cannot_be_read_is_named(empty_lake: str, day: datetime):
    note(empty_lake, "deleted", day, "/a/one.wav")
    (part,) = Path(empty_lake).glob("presence/*/*.parquet")
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(IntegrityError, match=f"{part}: cannot be read"):
        absent_uris(empty_lake)
