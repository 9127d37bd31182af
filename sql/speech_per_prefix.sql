-- How much was said under each folder of the archive: `from speech_per_prefix(2)`.
-- grain: one row per beginning of a URI, `depth` folders deep (a bucket is one), over the newest transcripts
-- sources: recordings_latest
-- units: audio_h, speech_h hours; words_per_minute of speech, null without speech
-- example: s3://archive/news/ | num_recordings 120 | num_rejected 2 | audio_h 61.2 | speech_h 40.3 | words_per_minute 148
create or replace macro speech_per_prefix(depth) as table
select
    regexp_extract(uri, '^(?:[a-z][a-z0-9+.-]*://)?/?(?:[^/]+/){0,' || depth || '}') as prefix,
    count(*) as num_recordings,
    count(*) filter (where status = 'rejected') as num_rejected,
    sum(decoded_s) / 3600 as audio_h,
    sum(speech_s) / 3600 as speech_h,
    sum(num_words)::bigint as num_words,
    sum(num_words) / nullif(sum(speech_s) / 60, 0) as words_per_minute
from recordings_latest
group by prefix
order by prefix;
