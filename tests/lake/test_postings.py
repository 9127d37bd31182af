"""What a compaction writes down of words is what stands in the text, and nothing but time depends on it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dgasr.lake import commits
from dgasr.lake.commits import indexed_key
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.forgetting import forget_partition
from dgasr.lake.inspection import check_lake
from dgasr.lake.inspection.findings import Finding
from dgasr.lake.location import open_lake
from dgasr.lake.manifests import publish_manifest, read_manifest
from dgasr.lake.parts import commit_shard
from dgasr.lake.postings import postings_of
from dgasr.lake.schema import TERMS_VERSION
from dgasr.lake.snapshot import snapshot
from dgasr.lake.vacuum import VacuumConfig, vacuum
from dgasr.lake.views import connect, view_statements
from dgasr.store import objects
from tests.lake.reading import ask, keys_of

TEXTS = ("one two, two", "", "L'Élan, élan", "我说 two", "twenty-one two one")
QUESTIONS = (
    *(f"from search('{query}')" for query in ("two", "one two", "twenty one two", "élan", "我", "nothing")),
    "from phrase('one two') order by all",
    "from postings('one two élan') order by all",
)


@pytest.fixture
def lake(tmp_path, make_shard):
    """Three shards of the same texts, of one date, and one of another, not compacted."""
    uri = str(tmp_path / "lake")
    for number in range(4):
        day = make_shard().recordings[0]["modified_at"].replace(day=2 + number // 3)
        texts = TEXTS[: len(TEXTS) - number]
        pieces = [("speech" if text else "silence", n, n + 1, text, 0.5 + n / 10, ()) for n, text in enumerate(texts)]
        rows = make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac", pieces=pieces, modified_at=day)
        commit_shard(objects, uri, rows)
    return uri


def answers(lake: str) -> list[list[tuple]]:
    with connect(lake) as connection:
        return [connection.execute(question).fetchall() for question in QUESTIONS]


def findings(lake: str) -> list[Finding]:
    """What is wrong with postings."""
    return [item for item in check_lake(lake, is_deep=True).findings if item.kind.startswith("postings")]


def postings_files(lake: str) -> list[Path]:
    return sorted(Path(lake).glob("postings/**/*.parquet"))


def test_a_text_is_taken_apart_by_words_and_where_they_stand():
    columns = {"recording_id": ["r"] * 2, "shard_id": ["s"] * 2, "segment_index": [4, 5], "text": ["To be, or to", ""]}
    schema = pa.schema([("recording_id", pa.string()), ("shard_id", pa.string()), ("segment_index", pa.int32())])
    made = postings_of(pa.table(columns, schema=schema.append(pa.field("text", pa.string()))))
    rows = {row.pop("term"): row for row in made.to_pylist()}
    same = {"recording_id": "r", "shard_id": "s", "segment_index": 4, "num_terms": 4}
    places = {"to": [1, 4], "be": [2], "or": [3]}
    assert rows == {term: same | {"positions": positions} for term, positions in places.items()}


def test_every_answer_is_that_of_a_lake_without_postings(lake):
    before = answers(lake)
    assert all(rows for rows, question in zip(before, QUESTIONS, strict=True) if "nothing" not in question)
    done = compact(objects, lake, CompactionConfig())
    assert done.num_indexed == 2
    assert {indexed_key(key) for key in keys_of(lake, "postings")} == set(keys_of(lake, "segments"))
    assert ask(lake, "select count(*) from unindexed_parts") == [(0,)]
    assert answers(lake) == before


def test_what_is_committed_since_is_found_in_its_text(lake, make_shard):
    compact(objects, lake, CompactionConfig())
    commit_shard(objects, lake, make_shard(shard_id="s9", uri="/a/9.flac"))
    mixed = answers(lake)
    assert ("/a/9.flac",) in ask(lake, "select uri from search('forty two')")
    compact(objects, lake, CompactionConfig())
    assert answers(lake) == mixed


def test_postings_of_merged_parts_go_with_them(lake, make_shard):
    compact(objects, lake, CompactionConfig())
    first = set(keys_of(lake, "postings"))
    commit_shard(objects, lake, make_shard(shard_id="s9", uri="/a/9.flac"))
    compact(objects, lake, CompactionConfig())
    named = {part.key for part in read_manifest(open_lake(lake)).parts if part.table == "postings"}
    assert named == set(keys_of(lake, "postings"))
    assert len(named & first) == 1
    vacuum(objects, lake, VacuumConfig(grace_s=0.0))
    assert {path.relative_to(lake).as_posix() for path in postings_files(lake)} == named


def test_each_of_several_parts_of_a_partition_keeps_its_own(lake):
    before = answers(lake)
    size_bytes = min(part.size_bytes for part in snapshot(open_lake(lake)).parts["segments"])
    config = CompactionConfig(target_bytes=2 * size_bytes)  # they are large, and their postings small
    assert compact(objects, lake, config).num_indexed == 4
    again = compact(objects, lake, config)
    assert (again.num_merged, again.num_indexed) == (0, 0)
    assert {indexed_key(key) for key in keys_of(lake, "postings")} == set(keys_of(lake, "segments"))
    assert answers(lake) == before


def test_postings_that_an_older_dgasr_left_behind_are_not_read(lake):
    """It merges parts, and keeps in the manifest what it does not know."""
    compact(objects, lake, CompactionConfig())
    before = answers(lake)
    manifest = read_manifest(open_lake(lake))
    (gone,) = [part for part in manifest.parts if part.table == "segments" and "date=2026-01-02" in part.key]
    data = Path(lake, gone.key).read_bytes()
    moved = gone.key.replace("merged.", "merged.0")
    Path(lake, moved).write_bytes(data)
    parts = [part if part != gone else replace(gone, key=moved) for part in manifest.parts]
    publish_manifest(objects, lake, manifest.next(parts, manifest.covers, manifest.dropped))
    assert len(keys_of(lake, "postings")) == 1
    assert answers(lake) == before
    assert check_lake(lake, is_deep=True).num_faults == 0


def test_postings_of_other_terms_are_not_read_and_made_anew(lake, monkeypatch):
    monkeypatch.setattr(commits, "TERMS_VERSION", 0)
    compact(objects, lake, CompactionConfig())
    monkeypatch.undo()
    assert keys_of(lake, "postings") == []
    assert compact(objects, lake, CompactionConfig()).num_indexed == 2
    vacuum(objects, lake, VacuumConfig(grace_s=0.0))
    assert len(keys_of(lake, "postings")) == len(postings_files(lake)) == 2


def test_whoever_changes_what_terms_are_raises_their_version():
    """The number makes a compaction index everything anew; the digest is that of sql/terms.sql without comments."""
    statement = "\n".join(line.partition("--")[0] for line in view_statements()["terms"].splitlines())
    digest = hashlib.sha256(" ".join(statement.split()).encode()).hexdigest()[:16]
    assert (TERMS_VERSION, digest) == (1, "d9e8bbc5283752e6")


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_postings_that_are_lost_change_no_answer_and_are_made_anew(lake, harm):
    compact(objects, lake, CompactionConfig())
    before = answers(lake)
    harm(postings_files(lake)[0])
    assert answers(lake) == before
    (note,) = findings(lake)
    assert (note.severity, note.kind) == ("note", "postings_lost")
    assert "dgasr lake compact" in note.advice
    assert compact(objects, lake, CompactionConfig()).num_indexed == 1
    assert ask(lake, "select count(*) from unindexed_parts") == [(0,)]
    assert answers(lake) == before
    assert check_lake(lake, is_deep=True).num_faults == 0


def test_postings_that_say_something_else_are_found(lake):
    compact(objects, lake, CompactionConfig())
    path = postings_files(lake)[0]
    table = pq.ParquetFile(path).read()
    _replace(lake, path, table.set_column(0, table.schema.field("term"), pa.array(["wrong"] * table.num_rows)))
    (fault,) = findings(lake)
    assert (fault.severity, fault.kind) == ("fault", "postings_differ")
    assert "Delete the file and run `dgasr lake compact`" in fault.advice
    path.unlink()
    compact(objects, lake, CompactionConfig())
    assert check_lake(lake, is_deep=True).num_faults == 0


def _replace(lake: str, path: Path, table: pa.Table) -> None:
    """Put other rows into postings, as if the compaction had written them."""
    pq.write_table(table, path)
    manifest = read_manifest(open_lake(lake))
    key = path.relative_to(lake).as_posix()
    written = {"num_rows": table.num_rows, "size_bytes": path.stat().st_size, "sha256": None}
    parts = [replace(part, **written) if part.key == key else part for part in manifest.parts]
    publish_manifest(objects, lake, manifest.next(parts, manifest.covers, manifest.dropped))


def test_what_is_forgotten_is_forgotten_by_its_postings(lake):
    compact(objects, lake, CompactionConfig())
    forget_partition(objects, lake, "recipe_id=f00d/date=2026-01-02")
    assert [path.parent.name for path in postings_files(lake)] == ["date=2026-01-03"]
    assert {uri for (uri,) in ask(lake, "select uri from search('two')")} == {"/a/3.flac"}


def test_a_damaged_part_is_not_indexed_and_named_once(lake):
    part = next(Path(lake).glob("segments/*/date=2026-01-03/*.parquet"))
    part.write_bytes(part.read_bytes()[::-1])
    done = compact(objects, lake, CompactionConfig())
    assert done.num_indexed == 1
    assert len(done.damaged) == 1
    assert "has other bytes than were committed" in done.damaged[0]


def test_a_killed_compaction_leaves_postings_that_the_vacuum_removes(lake):
    class Dying:
        read_bytes, delete = staticmethod(objects.read_bytes), staticmethod(objects.delete)

        def write_if_absent(self, uri, data):
            if uri.endswith("00000002.json.gz"):
                raise KeyboardInterrupt
            return objects.write_if_absent(uri, data)

    with pytest.raises(KeyboardInterrupt):
        compact(Dying(), lake, CompactionConfig())
    assert snapshot(open_lake(lake)).parts["postings"] == ()
    before = answers(lake)
    vacuum(objects, lake, VacuumConfig(grace_s=0.0))
    assert postings_files(lake) == []
    compact(objects, lake, CompactionConfig())
    assert answers(lake) == before
