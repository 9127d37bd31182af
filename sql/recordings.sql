-- Every (recording, recipe) that was committed.
-- grain: one row per recording and recipe. Two runs that planned at once may commit a recording in two shards:
--        the set of rows that was transcribed first counts, and segments follow the same choice.
-- sources: recording_parts
-- units: *_s seconds, *_hz hertz, *_bytes bytes, *_at UTC
-- example: s3://archive/a.flac | ok | decoded_s 12.48 | speech_s 9.02 | num_words 31
create or replace view recordings as
select *
from recording_parts
qualify row_number() over (
    partition by recipe_id, "date", recording_id
    order by transcribed_at, shard_id
) = 1;
