-- Segments with a reason to doubt them.
-- grain: one row per segment of the newest transcripts that carries a flag, the least sure first
-- sources: segments_latest
-- units: *_s seconds from the recording's first sample, end exclusive; confidence in [0, 1]
-- example: s3://archive/c.mp3 | 0.0–4.0 | [no_speech] | 0.21 | 'eight'
create or replace view suspicious_segments as
select uri, start_s, end_s, flags, confidence, text, segment_index, channel, audio_track
from segments_latest
where len(flags) > 0
order by confidence nulls first, uri, start_s;
