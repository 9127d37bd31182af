-- Recordings with the same audio, under whatever name and in whatever container.
-- grain: one row per audio that two URIs or more have in their newest version, the most seconds too many first
-- sources: recordings_latest
-- units: decoded_s seconds of one copy, copies_s of all but one
-- example: 3f0c… | num_copies 2 | decoded_s 61.2 | copies_s 61.2 | [s3://archive/a.flac, s3://archive/a (copy).wav]
create or replace view duplicate_audio as
select
    audio_digest,
    count(*) as num_copies,
    max(decoded_s) as decoded_s,
    max(decoded_s) * (count(*) - 1) as copies_s,
    list(uri order by uri) as uris
from recordings_latest
where audio_digest is not null and decoded_s > 0
group by audio_digest
having count(*) > 1
order by copies_s desc, audio_digest;
