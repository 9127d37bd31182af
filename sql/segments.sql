-- Every segment of the recordings in `recordings`, spoken or not, with its words nested.
-- grain: one row per recording, recipe and segment, in the order of the parts: each recording's segments follow each other
-- sources: segment_parts, recordings
-- units: *_s seconds from the recording's first sample, end exclusive
-- cost: a full scan, unless it is asked for some columns, a recording or a date
-- example: recording 8c1f… | segment_index 0 | 0.0–4.2 | speech | 'one two three' | [{word: one, start_s: 0.31, …}, …]
create or replace view segments as
select segment_parts.*
from segment_parts
-- one row of recordings at most: a join passes filters on to both sides, a semi join to one
join recordings using (recipe_id, "date", recording_id, shard_id);
