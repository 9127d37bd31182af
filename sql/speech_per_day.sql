-- How much was said, day by day.
-- grain: one row per UTC date of modified_at, over the newest transcripts
-- sources: recordings_latest
-- units: audio_h, speech_h hours; words_per_minute of speech, null without speech
-- example: 2026-11-21 | num_recordings 120 | num_rejected 2 | audio_h 61.2 | speech_h 40.3 | words_per_minute 148
create or replace view speech_per_day as
select
    "date",
    count(*) as num_recordings,
    count(*) filter (where status = 'rejected') as num_rejected,
    sum(decoded_s) / 3600 as audio_h,
    sum(speech_s) / 3600 as speech_h,
    sum(num_words)::bigint as num_words,
    sum(num_words) / nullif(sum(speech_s) / 60, 0) as words_per_minute
from recordings_latest
group by "date"
order by "date";
