-- The segments of recordings_latest, with their URI.
-- grain: one row per URI and segment, in the order of the files: each recording's segments follow each other
-- sources: segments, recordings_latest
-- units: *_s seconds from the recording's first sample, end exclusive
-- cost: a full scan, unless it is asked for some columns, a recording or a date
-- example: s3://archive/a.flac | segment_index 1 | 4.2–6.0 | silence | ''
create or replace view segments_latest as
select recordings_latest.uri, segments.*
from segments
join recordings_latest using (recipe_id, "date", recording_id);
