-- What is said at a moment: `from transcript_at('s3://archive/a.flac', 31.5)`.
-- grain: the segment of the newest transcript that the moment lies in, of each track and channel that was transcribed by
--        itself; no row before the beginning or after the end
-- sources: segments_latest
-- units: second and *_s seconds from the recording's first sample, end exclusive; word: the one being spoken, null between
--        two words
-- example: 30.1–34.0 | speech | 'one forty two' | 'forty' | 31.2–31.7 | 'eight nine' | 'three' | 0.98 | []
create or replace macro transcript_at(at_uri, second) as table
with segment as (
    select
        *,
        list_filter(words, lambda word: word.start_s <= second and second < word.end_s)[1] as spoken,
        lag(text, 1, '') over recording as text_before,
        lead(text, 1, '') over recording as text_after
    from segments_latest
    where uri = at_uri
    window recording as (partition by audio_track, channel order by segment_index)
)
select
    start_s, end_s, kind, text, spoken.word as word, spoken.start_s as word_start_s, spoken.end_s as word_end_s,
    text_before, text_after, confidence, flags, segment_index, channel, audio_track
from segment
where start_s <= second and second < end_s
order by audio_track, channel;
