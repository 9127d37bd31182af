-- Every (recording, recipe) that was committed.
-- grain: one row per recording and recipe; what is asked for again replaces what was there
-- sources: transcripts
-- units: *_s seconds, *_hz hertz, *_bytes bytes, *_at UTC
-- example: s3://archive/a.flac | ok | decoded_s 12.48 | speech_s 9.02 | num_words 31
create or replace view recordings as
select
    recording_id, uri, etag, size_bytes, modified_at, shard_id, run_id, status, reason, message, container, codec,
    source_sample_rate_hz, num_channels, declared_s, decoded_s, speech_s, dropped_s, num_segments, num_words,
    language, transcribed_at, audio_digest, read_s, take, audio_track, num_audio_tracks, cancelled_s,
    channels_differ, num_transcripts, peak_dbfs, sample_correction, recipe_id, "date"
from transcripts
where row_kind = 'recording';
