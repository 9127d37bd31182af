"""Rows that contradict each other are found, whatever rule they break."""

from datetime import timedelta

import pyarrow as pa
import pytest

from dgasr.lake.inspection import check_lake
from dgasr.lake.inspection.invariants import INVARIANTS
from dgasr.lake.manifests import Manifest, publish_manifest
from dgasr.lake.parts import commit_shard, write_presence
from dgasr.lake.rows import presence_rows
from dgasr.store import objects
from tests.lake.inspection.finding import kinds, part_of, rewrite

RECORDING_FAULTS = {
    "num_segments": {"num_segments": 2},
    "num_words": {"num_words": 9},
    "speech_and_dropped": {"speech_s": 8.5},
    "cover": {"decoded_s": 10.5, "dropped_s": 2.5},
    "status": {"reason": "truncated"},
    "value": {"reason": "bad luck", "status": "partial"},
    "identity": {"etag": "v2"},
}

SEGMENT_FAULTS = {
    "cover": {"start_s": 6.5},
    "segment_index": {"segment_index": 5},
    "value": {"kind": "music"},
    "confidence": {"confidence": 1.5},
    "words": {"words": [{"word": "x", "start_s": 5.9, "end_s": 6.5, "confidence": 1.0}]},
    "segments_without_recording": {"recording_id": "f" * 32},
}

WORDS_FAULTS = {
    "end before their start": [(7.0, 6.5)],
    "overlap": [(6.0, 7.0), (6.9, 7.5)],
    "leave their segment": [(6.0, 6.5), (7.0, 8.5)],
    "are out of order": [(7.0, 7.5), (6.1, 6.5), (7.6, 7.7)],
}


@pytest.mark.parametrize("kind", RECORDING_FAULTS)
def test_a_recording_that_contradicts_itself_is_found(plant, kind):
    lake = plant(lambda rows: rows.recordings[0].update(RECORDING_FAULTS[kind]))
    assert kind in kinds(lake, is_deep=kind == "identity")


@pytest.mark.parametrize("kind", SEGMENT_FAULTS)
def test_a_segment_that_contradicts_the_others_is_found(plant, kind):
    lake = plant(lambda rows: rows.segments[1].update(SEGMENT_FAULTS[kind]))
    assert kind in kinds(lake)


@pytest.mark.parametrize("how", WORDS_FAULTS)
def test_words_that_are_not_in_order_are_found(plant, how):
    words = [{"word": "x", "start_s": start, "end_s": end, "confidence": 1.0} for start, end in WORDS_FAULTS[how]]
    lake = plant(lambda rows: rows.segments[1].update(words=words))
    assert "words" in kinds(lake)


def test_doubled_rows_are_found(plant):
    def double(rows):
        rows.recordings.extend(rows.recordings)
        rows.segments.append(rows.segments[0])

    assert {"recording_doubled", "segment_doubled"} <= set(kinds(plant(double)))


def test_a_recording_under_another_date_is_found(lake):
    def shift(table):
        column = pa.array(
            [value + timedelta(days=9) for value in table["modified_at"].to_pylist()], table["modified_at"].type
        )
        return table.set_column(table.schema.names.index("modified_at"), table.schema.field("modified_at"), column)

    rewrite(part_of(lake, "recordings"), shift)
    assert kinds(lake) == ["partition"]


def test_a_shard_with_other_members_than_committed_is_found(lake):
    rewrite(part_of(lake, "recordings"), lambda table: table.filter(pa.array([True, True, False])))
    assert "shard_members" in kinds(lake, is_deep=True)


def test_an_unknown_event_is_found(lake, day):
    rows = presence_rows([("/a", None)], "vanished", noticed_at=day, run_id="r")
    write_presence(objects, str(lake), rows)
    assert kinds(lake) == ["event"]


def test_many_faults_of_a_kind_are_counted(plant):
    def shift(rows):
        rows.segments[:] = [rows.segments[0] | {"segment_index": 2 * n, "confidence": 2.0} for n in range(9)]

    found = [f for f in check_lake(str(plant(shift)), is_deep=False).findings if f.kind == "confidence"]
    assert len(found) == 6
    assert any(f.what == "4 more like the 5 that are named" for f in found)


def test_a_run_that_was_killed_and_a_recording_that_two_plans_took_are_noted(lake, make_shard):
    commit_shard(objects, str(lake), make_shard(shard_id="s9", run_id="killed"))
    assert kinds(lake) == []
    assert kinds(lake, "note") == ["recording_in_several_shards", "run_without_row"]


def test_every_rule_has_a_name_of_its_own_and_advice():
    assert len({rule.kind for rule in INVARIANTS}) == len(INVARIANTS) == 17
    assert all(rule.advice for rule in INVARIANTS)


def test_rows_of_a_dropped_recipe_are_not_judged(lake):
    publish_manifest(objects, str(lake), Manifest().next([], [], ["f00d"]))
    part_of(lake, "segments").unlink()
    assert kinds(lake) == []
