-- Recordings that could not be used, wholly or in part, and what to do about each.
-- grain: one row per URI whose newest version is rejected or partial
-- sources: recordings_latest
-- units: *_s seconds, size_bytes bytes
-- example: truncated | partial | s3://archive/b.wav | 's3://archive/b.wav: ends after 3.1 s of 8.0 s. …'
create or replace view rejections as
select reason, status, uri, message, declared_s, decoded_s, size_bytes
from recordings_latest
where status <> 'ok'
order by reason, uri;
