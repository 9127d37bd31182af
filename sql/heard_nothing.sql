-- Recordings without a word in which sound was taken for speech, or which are quiet: is it the wrong channel or track, or the level?
-- grain: one row per recording of the newest transcripts without a word and with a second of speech, or a peak below -50 dBFS; the longest speech first
-- sources: recordings_latest
-- units: *_s seconds, *_dbfs dB relative to full scale
-- example: s3://archive/a.mp4 | speech_s 61.2 | peak_dbfs -41.8 | num_channels 2 | channels_differ true | audio_track 0 of num_audio_tracks 2
create or replace view heard_nothing as
select
    uri, status, speech_s, decoded_s, peak_dbfs, sample_correction, num_channels, channels_differ, cancelled_s,
    audio_track, num_audio_tracks
from recordings_latest
where num_words = 0 and (speech_s >= 1 or peak_dbfs < -50)
order by speech_s desc, uri;
