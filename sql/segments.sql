-- Every segment of the recordings in `recordings`, spoken or not, with its words nested.
-- grain: one row per recording, recipe and segment, in the order of the files: each recording's segments follow each other,
--        those of one track and channel after those of the one before; segment_index counts through
-- sources: transcripts
-- units: *_s seconds from the recording's first sample, end exclusive
-- cost: a full scan, unless it is asked for some columns, a recording or a date
-- example: recording 8c1f… | segment_index 0 | 0.0–4.2 | speech | 'one two three' | [{word: one, start_s: 0.31, …}, …]
create or replace view segments as
select
    recording_id, shard_id, segment_index, channel, start_s, end_s, kind, cut, text, language, words, timing_source,
    confidence, flags, num_steps, canvas_tokens, audio_track, recipe_id, "date"
from transcripts
where row_kind = 'segment';
