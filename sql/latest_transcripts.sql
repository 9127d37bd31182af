-- What each recording says.
-- grain: one row per URI, and per track and channel of it that was transcribed by itself: its newest version, by the
--        preferred recipe; text is empty where nothing was said
-- sources: recordings_latest, segments_latest, joined
-- units: *_s seconds, of this track and channel; confidence: mean of the segments' confidences, weighted by their length
-- cost: a full scan of the text, unless it is asked for a uri
-- example: s3://archive/a.flac | ok | 'one two three four' | confidence 0.97 | num_flagged 0 | decoded_s 12.48
create or replace view latest_transcripts as
with spoken as (
    select
        uri, audio_track, channel,
        sum(len(words))::integer as num_words,
        coalesce(sum(end_s - start_s) filter (where kind = 'speech'), 0) as speech_s,
        joined(list(text order by segment_index) filter (where text <> '')) as text,
        sum(confidence * (end_s - start_s))
            / nullif(sum(end_s - start_s) filter (where confidence is not null), 0) as confidence,
        count(*) filter (where len(flags) > 0) as num_flagged
    from segments_latest
    group by uri, audio_track, channel
)
select
    recordings_latest.uri, recordings_latest.status,
    coalesce(spoken.text, '') as text,
    spoken.confidence, coalesce(spoken.num_flagged, 0) as num_flagged, coalesce(spoken.num_words, 0) as num_words,
    recordings_latest.decoded_s, coalesce(spoken.speech_s, 0) as speech_s, recordings_latest.language,
    recordings_latest.reason, recordings_latest.recording_id, recordings_latest.recipe_id,
    recordings_latest.transcribed_at, spoken.channel, spoken.audio_track
from recordings_latest
left join spoken using (uri)
order by uri, audio_track, channel;
