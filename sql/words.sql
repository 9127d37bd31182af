-- Every word with its time.
-- grain: one row per word of the newest transcripts; word_index counts from 0 in its segment
-- sources: segments_latest
-- units: *_s seconds from the recording's first sample, end exclusive; confidence in [0, 1]
-- cost: a full scan, unless it is asked for a uri or a date
-- example: s3://archive/a.flac | segment_index 0 | word_index 1 | two | 0.74–1.02 | 0.99
create or replace view words as
with numbered as (
    select
        uri, "date", segment_index, channel, audio_track,
        generate_subscripts(words, 1) - 1 as word_index,
        unnest(words) as word
    from segments_latest
)
select
    uri, segment_index, word_index, word.word as word, word.start_s as start_s, word.end_s as end_s,
    word.confidence as confidence, channel, audio_track, "date"
from numbered;
