-- What the lake was transcribed with.
-- grain: one row per recipe, the one that transcribed last first
-- sources: recordings, recordings_latest, runs
-- units: audio_h hours; num_latest: URIs whose latest transcript is this recipe's; *_at UTC
-- example: 5a0e… | tiny | num_recordings 1200 | num_latest 1180 | audio_h 610.0 | 2026-11-20 | 2026-11-21
create or replace view recipes as
with latest as (
    select recipe_id, count(*) as num_latest
    from recordings_latest
    group by recipe_id
),
models as (
    select recipe_id, any_value(recipe ->> '$.model.name') as model
    from runs
    group by recipe_id
)
select
    recordings.recipe_id, any_value(models.model) as model,
    count(*) as num_recordings,
    coalesce(any_value(latest.num_latest), 0) as num_latest,
    sum(recordings.decoded_s) / 3600 as audio_h,
    sum(recordings.num_words)::bigint as num_words,
    min(recordings.transcribed_at) as first_transcribed_at, max(recordings.transcribed_at) as last_transcribed_at
from recordings
left join latest using (recipe_id)
left join models using (recipe_id)
group by recordings.recipe_id
order by last_transcribed_at desc, recordings.recipe_id;
