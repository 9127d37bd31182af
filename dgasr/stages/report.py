"""What a run did, asked of the lake: a summary, a row of `runs`, and Markdown for a person.

Every figure is a query over the lake.
"""

from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from dgasr.lake.views import ask, connect_tables
from dgasr.recipe import Recipe
from dgasr.stages.counts import RunSummary, write_run
from dgasr.stages.engine import Engine
from dgasr.tables import markdown_table

DEVICES = """
    select string_agg(distinct device, ', ' order by device) as devices
    from runs where parent_run_id = $run_id and stage = 'decode'
"""
"""Devices on which a run's children decoded."""


def commit_run(
    lake_uri: str,
    recipe: Recipe,
    *,
    run_id: str,
    num_held: int,
    wall_s: float,
    engine: Callable[[], Engine] | None,
    **columns: Any,
) -> RunSummary:
    """Ask the lake what a run committed, and write the run's row, unless it did nothing.

    Only the lake counts retries and other workers as they should be. `num_held` recordings were in it before; `wall_s`
    runs from the run's begin until now, s; `engine` is the model that this process decoded with, `None` where child
    runs did; `columns` are `source`, `started_at` (with a time zone) and what else is known of the columns of `runs`.
    """
    with connect_tables(lake_uri) as connection:
        row = ask(connection, RECORDINGS, run_id=run_id)[0]
        devices = ask(connection, DEVICES, run_id=run_id)[0]["devices"]
    counts = {field: row[field] for field in COUNTED}
    summary = RunSummary(
        run_id=run_id, recipe_id=recipe.recipe_id, num_held=num_held, wall_s=wall_s, audio_s=row["decoded_s"], **counts
    )
    if summary.num_recordings:
        # Without speech no model was loaded, and it is not loaded for its device's name only.
        device = engine().device if engine is not None and summary.speech_s else devices or "none"
        write_run(lake_uri, recipe, summary, run_id=run_id, device=device, **columns)
    return summary


COUNTED = ("num_recordings", "num_partial", "num_rejected", "num_segments", "num_words", "speech_s")
"""Fields of a summary that have the names of the columns of `RECORDINGS`."""

RECORDINGS = """
    select
        count(*) as num_recordings,
        count(*) filter (status = 'ok') as num_ok,
        count(*) filter (status = 'partial') as num_partial,
        count(*) filter (status = 'rejected') as num_rejected,
        coalesce(sum(num_segments), 0)::bigint as num_segments,
        coalesce(sum(num_words), 0)::bigint as num_words,
        coalesce(sum(decoded_s), 0.0) as decoded_s,
        coalesce(sum(speech_s), 0.0) as speech_s,
        coalesce(sum(dropped_s), 0.0) as dropped_s,
        coalesce(sum(greatest(declared_s - decoded_s, 0)) filter (status <> 'rejected'), 0.0) as missing_s
    from recordings
    where run_id = $run_id
"""

CHILDREN = """
    select
        stage,
        count(*) as num_finished,
        sum(audio_s) as audio_s,
        sum(wall_s) as wall_s,
        sum(audio_s) / nullif(sum(wall_s), 0) as rtfx,
        sum(busy_share * wall_s) / nullif(sum(wall_s) filter (busy_share is not null), 0) as busy_share,
        sum(wall_s * gpu_hour_price) / 3600 as cost,
        count(distinct split_part(worker, ':', 1)) as num_machines,
        max(peak_memory_bytes) / 1e9 as peak_memory_gb
    from runs
    where parent_run_id = $run_id
    group by stage
    order by stage desc
"""

WHOLE = """
    select recipe_id, device, wall_s, rtfx, busy_share, num_attempts, wall_s * gpu_hour_price / 3600 as cost
    from runs
    where run_id = $run_id
"""

REASONS = """
    select status, reason, count(*) as recordings
    from recordings
    where run_id = $run_id and status <> 'ok'
    group by all
    order by recordings desc, reason
"""

SLOWEST = """
    select uri, status, round(read_s, 2) as read_s, round(decoded_s, 1) as decoded_s,
        round(decoded_s / nullif(read_s, 0), 1) as rtfx
    from recordings
    where run_id = $run_id and read_s is not null
    order by recordings.read_s desc, uri
    limit 10
"""

REJECTIONS = """
    select uri, status, reason, message
    from recordings
    where run_id = $run_id and status <> 'ok'
    order by status desc, reason, uri
    limit $limit
"""

Row = dict[str, Any]


def run_report(lake_uri: str, run_id: str, failures: Sequence[str] = ()) -> str:
    """Write a run's report in Markdown; `failures` says what was not done, a line each, which the lake cannot know."""
    with connect_tables(lake_uri) as connection:
        sections = [
            f"## Run `{run_id}`\n",
            _figures(connection, run_id),
            _section("Child runs", ask(connection, CHILDREN, run_id=run_id)),
            _section("Not used as a whole", ask(connection, REASONS, run_id=run_id)),
            _section("Slowest to read", ask(connection, SLOWEST, run_id=run_id)),
        ]
    if failures:
        lines = "".join(f"- {failure}\n" for failure in failures)
        sections.append(f"### Not done\nThe next run takes these up again.\n\n{lines}")
    return "\n".join(section for section in sections if section)


def rejections(lake_uri: str, run_id: str, limit: int) -> list[Row]:
    """List what a run could not use as a whole: uri, status, reason and message of at most `limit` recordings."""
    with connect_tables(lake_uri) as connection:
        return ask(connection, REJECTIONS, run_id=run_id, limit=limit)


def _figures(connection: duckdb.DuckDBPyConnection, run_id: str) -> str:
    """Lay the run's figures out as a table."""
    counts = ask(connection, RECORDINGS, run_id=run_id)[0]
    whole = next(iter(ask(connection, WHOLE, run_id=run_id)), {})
    decode = next((child for child in ask(connection, CHILDREN, run_id=run_id) if child["stage"] == "decode"), whole)
    declared_s = counts["decoded_s"] + counts["missing_s"]
    figures = {
        "recordings": "{num_recordings} ({num_ok} ok, {num_partial} partial, {num_rejected} rejected)".format(**counts),
        "audio": _hours(counts),
        "coverage": _text(counts["decoded_s"] / declared_s if declared_s else None, "{:.2%} of what headers declare"),
        "segments / words": "{num_segments} / {num_words}".format(**counts),
        "wall time": _text(whole.get("wall_s"), "{:.1f} s"),
        "RTFx": _text(whole.get("rtfx"), "{:.1f}"),
        "device": _text(whole.get("device"), "{}"),
        "model busy": _text(decode.get("busy_share"), "{:.0%} of the time between the first segment and the last"),
        "child runs": _text(whole.get("num_attempts"), "{} started"),
        "cost": _text(decode.get("cost"), "{:.2f}, without child runs that were killed"),
        "recipe": _text(whole.get("recipe_id"), "`{}`"),
    }
    return markdown_table(("what", "value"), [(name, value) for name, value in figures.items() if value])


def _hours(counts: Row) -> str:
    """Say where the audio went."""
    hours = {name: counts[f"{name}_s"] / 3600 for name in ("decoded", "speech", "dropped")}
    share = hours["speech"] / hours["decoded"] if hours["decoded"] else 0.0
    return "{decoded:.3f} h = {speech:.3f} h speech ({share:.0%}) + {dropped:.3f} h silence".format(
        share=share, **hours
    )


def _text(value: Any, form: str) -> str:
    """Write a value; "" for what is not known."""
    return "" if value is None else form.format(value)


def _section(title: str, rows: Sequence[Row]) -> str:
    """Lay rows out as a table under a title; "" where there are none."""
    if not rows:
        return ""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return f"### {title}\n" + markdown_table(names, [[row[name] for name in names] for row in rows])
