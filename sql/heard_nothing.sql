-- Recordings in which sound was taken for speech and not one word was recognised: is it the wrong channel or track, or too quiet?
-- grain: one row per recording of the newest transcripts with a second of speech or more and without a word, the longest first
-- sources: recordings_latest
-- units: *_s seconds
-- example: s3://archive/a.mp4 | speech_s 61.2 | num_channels 2 | channels_differ true | audio_track 0 of num_audio_tracks 2
create or replace view heard_nothing as
select uri, status, speech_s, decoded_s, num_channels, channels_differ, cancelled_s, audio_track, num_audio_tracks
from recordings_latest
where num_words = 0 and speech_s >= 1
order by speech_s desc, uri;
