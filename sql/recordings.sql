-- Every (recording, recipe) that was committed.
-- grain: one row per recording and recipe. Where a recording was committed several times, the highest take counts (it was
--        asked for again), and of one take the set of rows that was transcribed first (two runs planned at once);
--        segments follow the same choice.
-- sources: recording_parts
-- units: *_s seconds, *_hz hertz, *_bytes bytes, *_at UTC
-- example: s3://archive/a.flac | ok | decoded_s 12.48 | speech_s 9.02 | num_words 31
create or replace view recordings as
select *
from recording_parts
qualify row_number() over (
    -- recording_id stands for all of these; named here, they let a filter on them reach the files
    partition by recipe_id, "date", recording_id, uri
    order by coalesce(take, 0) desc, transcribed_at, shard_id
) = 1;
