-- The newest version of each URI, in its newest transcription.
-- grain: one row per URI
-- sources: recordings
-- units: as in recordings
-- example: s3://archive/a.flac | etag "9f…" | modified_at 2026-11-21 18:00 | recipe_id 5a0e…
create or replace view recordings_latest as
select *
from recordings
qualify row_number() over (
    partition by uri
    order by modified_at desc, transcribed_at desc, recording_id, recipe_id
) = 1;
