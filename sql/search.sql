-- Where something was said, best first: `from search('forty two')`, `from search('forty two', max_results := 5)`.
-- grain: one row per segment that holds at least one of the words asked for, the best `max_results` (50) of them, those that
--        score the same in the order of their URIs
-- sources: segments, recordings_latest, terms, says
-- units: *_s seconds from the recording's first sample, end exclusive; score: BM25 of the words asked for, and once
--        more the weight of all of them where several stand in the segment as asked (Robertson and Zaragoza 2009, section
--        3.2, k1 = 1.2, b = 0.75, lengths in bytes of text; ours: the phrase's weight)
-- cost: a full scan of the text
-- example: s3://archive/a.flac | 31.2–34.0 | score 9.7 | 'eight nine' | 'one forty two' | 'three'
create or replace macro search(query, max_results := 50) as table
with latest as materialized (
    select
        row_number() over (order by uri) as number,
        recipe_id, recording_id, uri
    from recordings_latest
),
-- Which of the words asked for stand in each segment, as often as they do. Of a text in ASCII only these are taken out.
heard as materialized (
    select
        latest.number, segments.segment_index, strlen(segments.text) as num_bytes,
        if(
            strlen(segments.text) = length(segments.text),
            regexp_extract_all(
                replace(lower(segments.text), '_', ' '), '\b(?:' || array_to_string(terms(query), '|') || ')\b'
            ),
            list_filter(terms(segments.text), lambda term: list_contains(terms(query), term))
        ) as hits,
        -- `if`, since `and` would look for the phrase in all of them
        if(
            len(terms(query)) > 1 and len(hits) >= len(terms(query)), says(segments.text, query), false
        ) as is_as_asked
    from segments
    join latest using (recipe_id, recording_id)
    where terms(query) <> []
),
found as materialized (
    select
        number, segment_index, num_bytes, is_as_asked, term,
        count(*) as num_hits
    from (select * exclude (hits), unnest(hits) as term from heard)
    group by all
),
weights as materialized (
    select
        term,
        ln(1 + (corpus.num_segments - num_found + 0.5) / (num_found + 0.5))::decimal(18, 12) as weight,
        corpus.mean_bytes
    from (select term, count(*) as num_found from found group by term)
    cross join (select count(*) as num_segments, avg(num_bytes) as mean_bytes from heard) as corpus
),
-- Decimals, whose sum does not depend on the order in which threads come to them.
best as materialized (
    select latest.uri, latest.recipe_id, latest.recording_id, ranked.segment_index, ranked.score
    from (
        select
            found.number, found.segment_index,
            sum(
                (
                    weights.weight::double * found.num_hits * 2.2
                    / (found.num_hits + 1.2 * (0.25 + 0.75 * found.num_bytes / weights.mean_bytes))
                )::decimal(18, 12)
            ) + if(bool_or(found.is_as_asked), (select sum(weight) from weights), 0) as score
        from found
        join weights using (term)
        group by found.number, found.segment_index
        order by score desc, found.number, found.segment_index
        limit max_results
    ) as ranked
    join latest using (number)
),
-- By recording alone, which is cheaper to compare; other recipes' rows of it fall out below.
nearby as (
    select
        recipe_id, recording_id, segment_index, start_s, end_s, text, confidence, channel,
        audio_track,
        lag(nullif(text, '') ignore nulls) over recording as text_before,
        lead(nullif(text, '') ignore nulls) over recording as text_after
    from segments
    semi join best using (recording_id)
    window recording as (partition by recipe_id, recording_id, audio_track, channel order by segment_index)
)
select
    best.uri, nearby.start_s, nearby.end_s,
    best.score::double as score,
    coalesce(nearby.text_before, '') as text_before,
    nearby.text,
    coalesce(nearby.text_after, '') as text_after,
    nearby.confidence, best.segment_index, nearby.channel, nearby.audio_track
from best
join nearby using (recipe_id, recording_id, segment_index)
order by best.score desc, best.uri, best.segment_index;
