-- Every second that was not given to the decoder, and why.
-- grain: one row per segment of the newest transcripts that is not speech
-- sources: segments_latest
-- units: *_s seconds from the recording's first sample, end exclusive
-- example: s3://archive/a.flac | 4.2–6.0 | duration_s 1.8 | silence
create or replace view dropped_intervals as
select
    uri, start_s, end_s,
    end_s - start_s as duration_s,
    kind as reason, segment_index, channel, audio_track
from segments_latest
where kind <> 'speech'
order by uri, start_s;
