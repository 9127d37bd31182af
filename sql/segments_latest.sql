-- The segments of recordings_latest, with their URI.
-- grain: one row per URI and segment
-- sources: segments, recordings_latest
-- units: *_s seconds from the recording's first sample, end exclusive
-- example: s3://archive/a.flac | segment_index 1 | 4.2–6.0 | silence | ''
create or replace view segments_latest as
select recordings_latest.uri, segments.*
from segments
join recordings_latest using (recipe_id, "date", recording_id);
