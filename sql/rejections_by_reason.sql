-- What goes wrong how often.
-- grain: one row per status and reason of `rejections`, the most frequent first
-- sources: rejections
-- units: size_bytes bytes, the sum over the recordings
-- example: truncated | partial | num_recordings 12 | size_bytes 48230112 | s3://archive/b.wav
create or replace view rejections_by_reason as
select
    reason, status,
    count(*) as num_recordings,
    sum(size_bytes)::bigint as size_bytes,
    min(uri) as example_uri
from rejections
group by reason, status
order by num_recordings desc, reason, status;
