-- The exact time of words that follow each other: `from phrase('forty two')`.
-- grain: one row per place where a segment of the newest transcripts has these words, whatever stands between them that is
--        no part of a word; not across the end of a segment
-- sources: segments_latest, terms, says, spaced
-- units: *_s seconds from the recording's first sample, of the phrase's first and last word, end exclusive; confidence in
--        [0, 1], of its least sure word
-- cost: a full scan of the text, and of the words where many segments have the phrase
-- example: s3://archive/a.flac | 31.2–32.0 | 0.98 | 'one forty two' | segment_index 7
create or replace macro phrase(query) as table
with held as materialized (
    select recipe_id, "date", recording_id, segment_index
    from segments_latest
    where
        -- leaves out most segments before the others' text is looked at closely
        contains(spaced(nfc_normalize(lower(text))), terms(query)[1])
        and says(text, query)
),
heard as (
    select
        uri, segment_index, channel, audio_track, text,
        flatten(
            list_transform(
                words,
                lambda word: list_transform(
                    terms(word.word),
                    lambda term: {term: term, start_s: word.start_s, end_s: word.end_s, confidence: word.confidence}
                )
            )
        ) as spelled
    from segments_latest
    semi join held using (recipe_id, "date", recording_id, segment_index)
),
begun as (
    select
        *,
        list_transform(spelled, lambda word: word.term) as spelled_terms,
        unnest(range(1, len(spelled) - len(terms(query)) + 2)) as position
    from heard
),
found as (
    select
        uri, segment_index, channel, audio_track, text,
        spelled[position:position + len(terms(query)) - 1] as said
    from begun
    where spelled_terms[position:position + len(terms(query)) - 1] = terms(query)
)
select
    uri,
    said[1].start_s as start_s,
    said[-1].end_s as end_s,
    list_min(list_transform(said, lambda word: word.confidence)) as confidence,
    text, segment_index, channel, audio_track
from found
order by uri, start_s;
