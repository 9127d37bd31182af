"""What must hold of the rows of a lake, each rule a query that answers with what breaks it. Knows no storage.

The same rules refuse a shard before it is written, and find what is wrong with a lake (`dgasr lake check`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa

from dgasr.errors import IntegrityError, Reason
from dgasr.lake.schema import STATUSES, VIEWS, PresenceEvent
from dgasr.records import SAMPLE_RATE_HZ, CutKind, SegmentKind, TimingSource

if TYPE_CHECKING:
    import duckdb

Severity = Literal["fault", "note"]
"""`fault`: readers get a wrong answer, or none. `note`: worth knowing; every answer is right."""

EXAMPLES = 5
"""Findings of one kind that are written out; one more says how many there are."""

REDO = (
    "The program that made these rows is at fault: report it; `dgasr lake forget PARTITION` takes the partition out, "
    "and the next `dgasr transcribe` fills it anew"
)
"""What to do about whole files whose rows contradict each other."""

FORGET_OR_RERUN = (
    "Nothing need be done where a partition was forgotten; otherwise run `dgasr transcribe` again: what is gone is "
    "transcribed anew"
)
"""What to do about recordings that a run counted and nobody finds."""

ENUMERATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "recordings": {"status": STATUSES, "reason": tuple(Reason)},
    "segments": {"kind": get_args(SegmentKind), "cut": get_args(CutKind), "timing_source": get_args(TimingSource)},
}
"""Columns that hold one of a few values, by view."""

SET_UP = f"""
    create temp view r as
        select *, round(decoded_s * {SAMPLE_RATE_HZ})::bigint as decoded,
            round(speech_s * {SAMPLE_RATE_HZ})::bigint as speech,
            round(dropped_s * {SAMPLE_RATE_HZ})::bigint as dropped
        from recordings;
    create temp view s as
        select *, round(start_s * {SAMPLE_RATE_HZ})::bigint as start_sample,
            round(end_s * {SAMPLE_RATE_HZ})::bigint as end_sample, 'recording ' || recording_id as place
        from segments;
    create temp view sums as
        select recipe_id, "date", recording_id, place, count(*) as num_segments, sum(len(words)) as num_words,
            min(segment_index) as first_index, max(segment_index) as last_index, max(end_sample) as last_sample,
            coalesce(sum(end_sample - start_sample) filter (where kind = 'speech'), 0) as speech
        from s
        group by all;
"""
"""What the rules are written over: `r` and `s` with positions in samples, and `sums` of each recording's segments."""

ROWS = 'recipe_id, "date", recording_id'
"""Columns that a recording's row shares with those of its segments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    severity: Severity
    kind: str
    """Name of the rule that is broken."""
    where: str
    """Which file or recording, for a person."""
    what: str
    advice: str
    """What to do now."""

    def line(self) -> str:
        """Say it in one line: what, where, what now."""
        return f"{self.severity} {self.kind}: {self.where}: {self.what}. {self.advice}."


def _values() -> str:
    """Write the query for columns that hold one of a few values, and for those that are never null."""
    places = {"recordings": "uri", "segments": "'recording ' || recording_id"}
    enumerated = [
        f"""select recipe_id, "date", {places[view]} as place, '{column} is ' || {column} as what
        from {view} where {column} not in ({", ".join(f"'{value}'" for value in allowed)})"""
        for view, columns in ENUMERATIONS.items()
        for column, allowed in columns.items()
    ]
    missing = [
        f"""select recipe_id, "date", recording_id as place,
            array_to_string([{", ".join(f"if({name} is null, '{name}', null)" for name in names)}], ', ') || ' is null'
            as what from {view} where {" or ".join(f"{name} is null" for name in names)}"""
        for view, names in (
            (view, [field.name for field in schema if not field.nullable and field.name not in ("recipe_id", "date")])
            for view, schema in VIEWS.items()
        )
    ]
    return " union all ".join([*enumerated, *missing])


ROW_RULES = (
    Rule(
        kind="recording_doubled",
        query="""select recipe_id, min("date") as "date", min(uri) as place,
            'stands ' || count(*) || ' times, on ' || count(distinct "date") || ' dates' as what
        from r group by recipe_id, recording_id having count(*) > 1""",
    ),
    Rule(
        kind="segment_doubled",
        query="""select recipe_id, min("date") as "date", min(place) as place,
            'segment ' || segment_index || ' stands ' || count(*) || ' times' as what
        from s group by recipe_id, recording_id, segment_index having count(*) > 1""",
    ),
    Rule(
        kind="segments_without_recording",
        query=f"""select recipe_id, "date", place, num_segments || ' segments and no row of recordings' as what
        from sums anti join r using ({ROWS})""",
    ),
    Rule(
        kind="shard",
        query=f"""select recipe_id, "date", uri as place,
            'is of shard ' || r.shard_id || ', and a segment of it of shard ' || s.shard_id as what
        from r join s using ({ROWS}) where r.shard_id <> s.shard_id""",
    ),
    Rule(
        kind="num_segments",
        query=f"""select recipe_id, "date", uri as place, 'says num_segments=' || r.num_segments || ', and '
            || coalesce(sums.num_segments, 0) || ' are there' as what
        from r left join sums using ({ROWS}) where r.num_segments <> coalesce(sums.num_segments, 0)""",
    ),
    Rule(
        kind="num_words",
        query=f"""select recipe_id, "date", uri as place, 'says num_words=' || r.num_words || ', and '
            || coalesce(sums.num_words, 0) || ' are there' as what
        from r left join sums using ({ROWS}) where r.num_words <> coalesce(sums.num_words, 0)""",
    ),
    Rule(
        kind="segment_index",
        query="""select recipe_id, "date", place, 'segment_index runs from ' || first_index || ' to ' || last_index
            || ' over ' || num_segments || ' segments' as what
        from sums where first_index <> 0 or last_index <> num_segments - 1""",
    ),
    Rule(
        kind="cover",
        query=f"""select recipe_id, "date", place, 'segment ' || segment_index
            || ' begins at sample ' || start_sample || ', ends at ' || end_sample || ', and the one before ends at '
            || before as what
        from (
            select *, lag(end_sample, 1, 0) over (
                partition by {ROWS}, audio_track, channel order by segment_index
            ) as before from s
        ) where start_sample <> before or end_sample <= start_sample
        union all
        select recipe_id, "date", uri as place, 'has segments up to sample ' || coalesce(last_sample, 0)
            || ', and was decoded up to ' || decoded as what
        from r left join (
            select {ROWS}, max(end_sample) as last_sample from s group by {ROWS}, audio_track, channel
        ) using ({ROWS}) where decoded <> coalesce(last_sample, 0)
        union all
        select recipe_id, "date", uri as place, 'says num_transcripts=' || r.num_transcripts || ', and segments of '
            || num_places || ' tracks and channels are there' as what
        from r join (
            select {ROWS}, count(distinct (audio_track, channel)) as num_places from s group by {ROWS}
        ) using ({ROWS}) where num_places <> coalesce(r.num_transcripts, 1)""",
    ),
    Rule(
        kind="speech_and_dropped",
        query=f"""select recipe_id, "date", uri as place, 'speech_s ' || speech_s || ' + dropped_s ' || dropped_s
            || ' is not decoded_s ' || decoded_s || ' for each transcript, or not what the segments come to' as what
        from r left join sums using ({ROWS})
        where r.speech + r.dropped <> r.decoded * coalesce(r.num_transcripts, 1)
            or r.speech <> coalesce(sums.speech, 0)""",
    ),
    Rule(
        kind="words",
        query="""select recipe_id, "date", place, 'segment ' || segment_index
            || ' has words that are out of order or outside of it' as what
        from s where len(words) > 0 and (
            words[1].start_s < start_s or words[-1].end_s > end_s
            or len(list_filter(words, lambda word: word.end_s < word.start_s)) > 0
            or len(list_filter(list_zip(words[1:-2], words[2:]), lambda pair: pair[2].start_s < pair[1].end_s)) > 0
        )""",
    ),
    Rule(
        kind="confidence",
        query="""select recipe_id, "date", place, 'segment ' || segment_index
            || ' has a confidence outside [0, 1]' as what
        from s where not confidence between 0 and 1
            or len(list_filter(words, lambda word: not word.confidence between 0 and 1)) > 0""",
    ),
    Rule(kind="value", query=_values()),
    Rule(
        kind="status",
        query="""select recipe_id, "date", uri as place, 'is ' || status || ' with reason '
            || coalesce(reason, 'null') || ', message ' || coalesce(message, 'null') || ' and ' || decoded_s || ' s'
            as what
        from r where (status = 'ok') <> (reason is null and message is null)
            or (status = 'rejected' and (decoded <> 0 or num_segments <> 0))""",
    ),
    Rule(
        kind="partition",
        query="""select recipe_id, "date", uri as place, 'was modified at ' || modified_at
            || ' and lies under another date' as what
        from r where modified_at::date <> "date" """,
    ),
)
"""Rules of a recording and its segments: of every shard before it is written, and of the lake."""

LAKE_RULES = (
    Rule(
        kind="rows_lost",
        severity="note",
        query="""select runs.recipe_id, runs."date", 'run ' || run_id as place, 'committed '
            || runs.num_recordings || ' recordings, and ' || coalesce(found.num, 0) || ' are there' as what
        from runs left join (select run_id, count(*) as num from r group by run_id) as found using (run_id)
        where runs.stage is null and runs.num_recordings > coalesce(found.num, 0)
            and runs.recipe_id in (select distinct recipe_id from r)
            and not exists (from r where r.recipe_id = runs.recipe_id and coalesce(r.take, 0) > 0)""",
        advice=FORGET_OR_RERUN,
    ),
    Rule(
        kind="run_doubled",
        query="""select min(recipe_id) as recipe_id, min("date") as "date", 'run ' || run_id as place,
            count(*) || ' rows of runs' as what
        from runs group by run_id having count(*) > 1""",
    ),
    Rule(
        kind="event",
        query=f"""select null as recipe_id, "date", uri as place, 'event is ' || event as what
        from presence where event not in ({", ".join(f"'{value}'" for value in get_args(PresenceEvent))})""",
    ),
    Rule(
        kind="run_without_row",
        severity="note",
        query="""select min(recipe_id) as recipe_id, min("date") as "date", 'run ' || run_id as place,
            count(*) || ' recordings, and no row of runs' as what
        from r anti join runs using (run_id) group by run_id""",
        advice="Nothing need be done: it was killed before its end, or goes on. Its recordings are whole",
    ),
)
"""Rules between tables; `rows_lost` can tell nothing where recordings were transcribed again."""


def broken_rules(connection: "duckdb.DuckDBPyConnection", lake_uri: str) -> Iterator[Finding]:
    """Yield examples of what breaks each rule, and how many more there are.

    The connection has what the rules name: `recordings`, `segments`, `runs` and `presence`.
    """
    connection.execute(SET_UP)
    for rule in (*ROW_RULES, *LAKE_RULES):
        found = connection.execute(f"""
            select count(*) over (), place, what, coalesce('recipe_id=' || recipe_id, 'presence') || '/date=' || "date"
            from ({rule.query})
            order by recipe_id, "date", place, what limit {EXAMPLES}
        """).fetchall()
        for _, place, what, partition in found:
            advice = rule.advice.replace("PARTITION", partition)
            yield Finding(severity=rule.severity, kind=rule.kind, where=place, what=what, advice=advice)
        if found and found[0][0] > EXAMPLES:
            what = f"{found[0][0] - EXAMPLES} more like the {EXAMPLES} that are named"
            yield Finding(severity=rule.severity, kind=rule.kind, where=lake_uri, what=what, advice=rule.advice)


def check_shard(shard_id: str, views: Mapping[str, pa.Table]) -> None:
    """Refuse rows of a shard that is about to be committed, its `recordings` and `segments`, that break a rule.

    IntegrityError with the first place.
    """
    # Tables in place of views, and one query for all rules: a shard has few rows, and planning is what costs.
    every_rule = " union all ".join(
        f"select {number} as number, '{rule.kind}' as kind, place, what from ({rule.query})"
        for number, rule in enumerate(ROW_RULES)
    )
    import duckdb  # only who commits needs it, and a child run that reads audio does not

    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, rows in views.items():
            connection.register(f"{name}_rows", rows)
            connection.execute(f"create temp table {name} as from {name}_rows")
        connection.execute(SET_UP.replace("temp view", "temp table"))
        for _, kind, place, what in connection.execute(f"{every_rule} order by all limit 1").fetchall():
            raise IntegrityError(
                f"shard {shard_id}: {kind}: {place}: {what}. "
                "Nothing was written; this is a fault of the program that made the rows."
            )
