-- The exact time of words that follow each other: `from phrase('forty two')`.
-- grain: one row per place where a segment of the newest transcripts has these words, whatever stands between them that is
--        neither letter nor digit; not across the end of a segment
-- sources: segments_latest
-- units: *_s seconds from the recording's first sample, of the phrase's first and last word, end exclusive; confidence in
--        [0, 1], of its least sure word
-- cost: a full scan of the text, and of the words of those segments that have the first three of them
-- example: s3://archive/a.flac | 31.2–32.0 | 0.98 | 'one forty two' | segment_index 7
create or replace macro phrase(query) as table
with heard as (
    select
        uri,
        segment_index,
        text,
        regexp_extract_all(lower(query), '[\p{L}\p{N}]+') as asked,
        flatten(
            list_transform(
                words,
                lambda word: list_transform(
                    regexp_extract_all(lower(word.word), '[\p{L}\p{N}]+'),
                    lambda term: {term: term, start_s: word.start_s, end_s: word.end_s, confidence: word.confidence}
                )
            )
        ) as spelled
    from segments_latest
    where
        contains(lower(text), regexp_extract_all(lower(query), '[\p{L}\p{N}]+')[1])
        and contains(lower(text), coalesce(regexp_extract_all(lower(query), '[\p{L}\p{N}]+')[2], ''))
        and contains(lower(text), coalesce(regexp_extract_all(lower(query), '[\p{L}\p{N}]+')[3], ''))
        and regexp_matches(
            text,
            '(?i)(?:^|[^\p{L}\p{N}])'
            || array_to_string(regexp_extract_all(query, '[\p{L}\p{N}]+'), '[^\p{L}\p{N}]+')
            || '(?:$|[^\p{L}\p{N}])'
        )
),
begun as (
    select
        *,
        list_transform(spelled, lambda word: word.term) as terms,
        unnest(range(1, len(spelled) - len(asked) + 2)) as position
    from heard
),
found as (
    select
        uri,
        segment_index,
        text,
        spelled[position:position + len(asked) - 1] as said
    from begun
    where terms[position:position + len(asked) - 1] = asked
)
select
    uri,
    said[1].start_s as start_s,
    said[-1].end_s as end_s,
    list_min(list_transform(said, lambda word: word.confidence)) as confidence,
    text,
    segment_index
from found
order by uri, start_s;
