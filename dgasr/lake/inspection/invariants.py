"""What must hold of a lake's rows, each rule a query that answers with the rows that break it. Knows no file.

The rules are those that `dgasr.lake.checks` holds every shard to before it is written, and those between shards.
"""

from dataclasses import dataclass
from typing import get_args

from dgasr.lake.checks import ENUMERATIONS
from dgasr.lake.inspection.findings import REDO, Severity
from dgasr.lake.schema import PresenceEvent
from dgasr.records import SAMPLE_RATE_HZ

TABLES = """
    create view r as
        select *, round(decoded_s * {rate})::bigint as decoded, round(speech_s * {rate})::bigint as speech,
            round(dropped_s * {rate})::bigint as dropped
        from recording_parts;
    create view s as
        select *, round(start_s * {rate})::bigint as start_sample, round(end_s * {rate})::bigint as end_sample
        from segment_parts;
    create view sums as
        select recipe_id, "date", shard_id, recording_id, count(*) as num_segments, sum(len(words)) as num_words,
            min(segment_index) as first_index, max(segment_index) as last_index, max(end_sample) as last_sample,
            coalesce(sum(end_sample - start_sample) filter (where kind = 'speech'), 0) as speech
        from s
        group by all;
""".replace("{rate}", str(SAMPLE_RATE_HZ))
"""What the rules are written over: `r` and `s`, with positions in samples, and `sums` of each recording's segments."""

ROWS_LOST = "rows_lost"
"""The rule that needs all rows of the lake to be judged."""

SET = 'recipe_id, "date", shard_id, recording_id'
"""Columns that name one recording in one shard: the rows that were made together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Invariant:
    """A rule.

    Attributes:
        kind: its name.
        query: answers with `recipe_id`, `"date"`, `place` and `what` for each row that breaks it.
        severity: what it means that it is broken.
        advice: what to do then.
    """

    kind: str
    query: str
    severity: Severity = "fault"
    advice: str = REDO


def _enumerated(view: str, table: str, place: str) -> str:
    """Write the query for columns that hold one of a few values."""
    return " union all ".join(
        f"""select recipe_id, "date", {place} as place, '{column} is ' || {column} as what
        from {view} where {column} not in ({", ".join(f"'{value}'" for value in allowed)})"""
        for column, allowed in ENUMERATIONS[table].items()
    )


INVARIANTS = (
    Invariant(
        kind="recording_doubled",
        query=f"""select recipe_id, "date", min(uri) as place,
            'stands ' || count(*) || ' times in shard ' || shard_id as what
        from r group by {SET} having count(*) > 1""",
    ),
    Invariant(
        kind="segment_doubled",
        query=f"""select recipe_id, "date", 'recording ' || recording_id as place,
            'segment ' || segment_index || ' stands ' || count(*) || ' times in shard ' || shard_id as what
        from s group by {SET}, segment_index having count(*) > 1""",
    ),
    Invariant(
        kind="segments_without_recording",
        query=f"""select recipe_id, "date", 'recording ' || recording_id as place,
            num_segments || ' segments of shard ' || shard_id || ' and no row of recordings' as what
        from sums anti join r using ({SET})""",
    ),
    Invariant(
        kind="num_segments",
        query=f"""select recipe_id, "date", uri as place, 'says num_segments=' || r.num_segments || ', and '
            || coalesce(sums.num_segments, 0) || ' are there' as what
        from r left join sums using ({SET}) where r.num_segments <> coalesce(sums.num_segments, 0)""",
    ),
    Invariant(
        kind="num_words",
        query=f"""select recipe_id, "date", uri as place, 'says num_words=' || r.num_words || ', and '
            || coalesce(sums.num_words, 0) || ' are there' as what
        from r left join sums using ({SET}) where r.num_words <> coalesce(sums.num_words, 0)""",
    ),
    Invariant(
        kind="segment_index",
        query="""select recipe_id, "date", 'recording ' || recording_id as place,
            'segment_index runs from ' || first_index || ' to ' || last_index || ' over ' || num_segments
            || ' segments' as what
        from sums where first_index <> 0 or last_index <> num_segments - 1""",
    ),
    Invariant(
        kind="cover",
        query=f"""select recipe_id, "date", 'recording ' || recording_id as place, 'segment ' || segment_index
            || ' begins at sample ' || start_sample || ' and the one before ends at ' || before as what
        from (
            select recipe_id, "date", recording_id, segment_index, start_sample, end_sample,
                lag(end_sample, 1, 0) over (partition by {SET} order by segment_index) as before
            from s
        ) where start_sample <> before or end_sample <= start_sample
        union all
        select recipe_id, "date", uri as place, 'the segments end at sample ' || coalesce(last_sample, 0)
            || ' and the audio at ' || decoded as what
        from r left join sums using ({SET}) where decoded <> coalesce(last_sample, 0)""",
    ),
    Invariant(
        kind="speech_and_dropped",
        query=f"""select recipe_id, "date", uri as place, 'speech_s ' || speech_s || ' + dropped_s ' || dropped_s
            || ' is not decoded_s ' || decoded_s || ', or not what the segments come to' as what
        from r left join sums using ({SET})
        where r.speech + r.dropped <> r.decoded or r.speech <> coalesce(sums.speech, 0)""",
    ),
    Invariant(
        kind="words",
        query="""select recipe_id, "date", 'recording ' || recording_id as place, 'segment ' || segment_index
            || ' has words that are out of order or outside of it' as what
        from s where len(words) > 0 and (
            words[1].start_s < start_s or words[-1].end_s > end_s
            or len(list_filter(words, lambda word: word.end_s < word.start_s)) > 0
            or len(list_filter(list_zip(words[1:-2], words[2:]), lambda pair: pair[2].start_s < pair[1].end_s)) > 0
        )""",
    ),
    Invariant(
        kind="confidence",
        query="""select recipe_id, "date", 'recording ' || recording_id as place, 'segment ' || segment_index
            || ' has a confidence outside [0, 1]' as what
        from s where not confidence between 0 and 1
            or len(list_filter(words, lambda word: not word.confidence between 0 and 1)) > 0""",
    ),
    Invariant(
        kind="value",
        query=" union all ".join(
            [_enumerated("r", "recordings", "uri"), _enumerated("s", "segments", "'recording ' || recording_id")]
        ),
    ),
    Invariant(
        kind="status",
        query="""select recipe_id, "date", uri as place, 'is ' || status || ' with reason '
            || coalesce(reason, 'null') || ' and ' || decoded_s || ' s' as what
        from r where (status = 'ok') <> (reason is null) or (status = 'rejected' and decoded <> 0)""",
    ),
    Invariant(
        kind="partition",
        query="""select recipe_id, "date", uri as place, 'was modified at ' || modified_at
            || ' and lies under another date' as what
        from r where modified_at::date <> "date" """,
    ),
    Invariant(
        kind=ROWS_LOST,
        severity="note",
        query="""select runs.recipe_id, runs."date", 'run ' || run_id as place, 'committed '
            || runs.num_recordings || ' recordings, and ' || coalesce(found.num, 0) || ' are there' as what
        from runs left join (select run_id, count(*) as num from r group by run_id) as found using (run_id)
        where runs.stage is null and runs.num_recordings > coalesce(found.num, 0)
            and runs.recipe_id in (select distinct recipe_id from r)""",
        advice="Nothing need be done where a partition was forgotten; otherwise restore commits from a copy, or run "
        "`dgasr transcribe` again: what is gone is then transcribed anew",
    ),
    Invariant(
        kind="event",
        query=f"""select null as recipe_id, "date", uri as place, 'event is ' || event as what
        from presence where event not in ({", ".join(f"'{value}'" for value in get_args(PresenceEvent))})""",
    ),
    Invariant(
        kind="run_without_row",
        severity="note",
        query="""select min(recipe_id) as recipe_id, min("date") as "date", 'run ' || run_id as place,
            count(*) || ' recordings, and no row of runs' as what
        from r anti join runs using (run_id) group by run_id""",
        advice="Nothing need be done: it was killed before its end, or goes on. Its recordings are whole",
    ),
    Invariant(
        kind="recording_in_several_shards",
        severity="note",
        query="""select recipe_id, "date", min(uri) as place, 'was committed with ' || count(*)
            || ' shards as one take; readers see the first' as what
        from r group by recipe_id, "date", recording_id, coalesce(take, 0) having count(*) > 1""",
        advice="Nothing need be done: two runs planned at once",
    ),
)
"""The rules. Each names the partition, so that advice can name it too."""
