-- The exact time of words that follow each other: `from phrase('forty two')`.
-- grain: one row per place where a segment of the newest transcripts has these words, whatever stands between them that is
--        no part of a word; not across the end of a segment
-- sources: postings, segments_latest, terms
-- units: *_s seconds from the recording's first sample, of the phrase's first and last word, end exclusive; confidence in
--        [0, 1], of its least sure word
-- cost: a full scan of the words where many segments have the phrase; otherwise as postings
-- example: s3://archive/a.flac | 31.2–32.0 | 0.98 | 'one forty two' | segment_index 7
create or replace macro phrase(query) as table
with asked as (
    select
        unnest(terms(query)) as term,
        generate_subscripts(terms(query), 1) as place
),
-- Where the words stand as asked, each is as far from the first as it is in the query. num_terms changes nothing; with all
-- of its columns DuckDB fetches a row group of postings in one piece, without one of them the list by the megabyte.
held as materialized (
    select distinct
        recipe_id,
        "date",
        recording_id,
        shard_id,
        segment_index
    from (
        select
            postings.*,
            unnest(postings.positions) - asked.place as before
        from postings(query) as postings
        join asked using (term)
    )
    group by recipe_id, "date", recording_id, shard_id, segment_index, num_terms, before
    having count(*) = len(terms(query))
),
heard as (
    select
        uri,
        segment_index,
        text,
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
    semi join held using (recipe_id, "date", recording_id, shard_id, segment_index)
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
        uri,
        segment_index,
        text,
        spelled[position:position + len(terms(query)) - 1] as said
    from begun
    where spelled_terms[position:position + len(terms(query)) - 1] = terms(query)
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
