-- The newest version of each URI, as the preferred recipe heard it, or else the recipe that transcribed it last.
-- grain: one row per URI. `set variable preferred_recipe = '5a0e…'` prefers a recipe, here and in all that builds on it.
-- sources: recordings
-- units: as in recordings
-- example: s3://archive/a.flac | etag "9f…" | modified_at 2026-11-21 18:00 | recipe_id 5a0e…
create or replace view recordings_latest as
select *
from recordings
qualify row_number() over (
    partition by uri
    order by
        modified_at desc,
        coalesce(recipe_id = getvariable('preferred_recipe'), false) desc,
        transcribed_at desc, recording_id, recipe_id
) = 1;
