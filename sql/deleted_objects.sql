-- Recordings whose object is gone, as far as runs noticed; their transcripts stay in the lake.
-- grain: one row per URI that was last noticed to be gone
-- sources: presence, recordings_latest
-- units: noticed_at UTC, by the first run that noticed; decoded_s seconds; null where the lake has no transcript of it
-- example: s3://archive/a.flac | 2026-11-21 18:00 | decoded_s 12.48 | num_words 31 | 8c1f…
create or replace view deleted_objects as
with last_events as (
    select *
    from presence
    qualify row_number() over (partition by uri order by noticed_at desc, run_id desc) = 1
)
select
    last_events.uri, last_events.noticed_at, recordings_latest.decoded_s, recordings_latest.num_words,
    recordings_latest.recording_id
from last_events
left join recordings_latest using (uri)
where last_events.event = 'deleted'
order by last_events.uri;
