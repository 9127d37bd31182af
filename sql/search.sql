-- Where something was said, best first: `from search('forty two')`, `from search('forty two', max_results := 5)`.
-- grain: one row per segment that holds at least one of the words asked for, the best `max_results` (50) of them, those that
--        score the same in the order of their URIs
-- sources: segments, recordings_latest, terms
-- units: *_s seconds from the recording's first sample, end exclusive; score: BM25 of the words asked for, and once
--        more the weight of all of them where several stand in the segment as asked (Robertson and Zaragoza 2009, section
--        3.2, k1 = 1.2, b = 0.75; ours: the phrase's weight)
-- cost: a full scan of the text
-- example: s3://archive/a.flac | 31.2–34.0 | score 9.7 | 'eight nine' | 'one forty two' | 'three'
create or replace macro search(query, max_results := 50) as table
with latest as materialized (
    select
        row_number() over (order by uri) as number,
        recipe_id,
        recording_id,
        uri,
        num_segments,
        num_words
    from recordings_latest
),
asked as materialized (
    select
        unnest(terms(query)) as term,
        generate_subscripts(terms(query), 1) as place
),
-- The regular expression leaves out most segments before their text is taken apart.
spelled as (
    select
        latest.number,
        segments.segment_index,
        terms(segments.text) as spelled
    from segments
    join latest using (recipe_id, recording_id)
    where
        terms(query) <> []
        and regexp_matches(nfc_normalize(lower(segments.text)), array_to_string(terms(query), '|'))
),
found as materialized (
    select
        number,
        segment_index,
        term,
        num_terms,
        list(position order by position) as positions
    from (
        select
            number,
            segment_index,
            len(spelled) as num_terms,
            unnest(spelled) as term,
            generate_subscripts(spelled, 1) as position
        from spelled
    )
    where list_contains(terms(query), term)
    group by number, segment_index, term, num_terms
),
weights as materialized (
    select
        term,
        ln(1 + (corpus.num_segments - num_found + 0.5) / (num_found + 0.5))::decimal(18, 12) as weight,
        corpus.num_words / corpus.num_segments as mean_terms
    from (select term, count(*) as num_found from found group by term)
    cross join (select sum(num_segments) as num_segments, sum(num_words) as num_words from latest) as corpus
),
-- Decimals, whose sum does not depend on the order in which threads come to them.
scored as materialized (
    select
        found.number,
        found.segment_index,
        count(*) as num_distinct,
        sum(
            (
                weights.weight::double * len(found.positions) * 2.2
                / (len(found.positions) + 1.2 * (0.25 + 0.75 * found.num_terms / weights.mean_terms))
            )::decimal(18, 12)
        ) as score
    from found
    join weights using (term)
    group by found.number, found.segment_index
),
-- Where several words stand as asked, each is as far from the first as it is in the query.
as_asked as materialized (
    select distinct
        number,
        segment_index
    from (
        select
            found.number,
            found.segment_index,
            unnest(found.positions) - asked.place as before
        from found
        join asked using (term)
        semi join (
            from scored
            where num_distinct = len(list_distinct(terms(query))) and len(terms(query)) > 1
        ) using (number, segment_index)
    )
    group by number, segment_index, before
    having count(*) = len(terms(query))
),
best as materialized (
    select
        latest.uri,
        latest.recipe_id,
        latest.recording_id,
        ranked.segment_index,
        ranked.score
    from (
        select
            scored.number,
            scored.segment_index,
            scored.score + if(as_asked.number is null, 0, (select sum(weight) from weights)) as score
        from scored
        left join as_asked using (number, segment_index)
        order by score desc, scored.number, scored.segment_index
        limit max_results
    ) as ranked
    join latest using (number)
),
-- By recording alone, which is cheaper to compare; other recipes' rows of it fall out below.
nearby as (
    select
        recipe_id,
        recording_id,
        segment_index,
        start_s,
        end_s,
        text,
        confidence,
        channel,
        audio_track,
        lag(nullif(text, '') ignore nulls) over recording as text_before,
        lead(nullif(text, '') ignore nulls) over recording as text_after
    from segments
    semi join best using (recording_id)
    window recording as (partition by recipe_id, recording_id, audio_track, channel order by segment_index)
)
select
    best.uri,
    nearby.start_s,
    nearby.end_s,
    best.score::double as score,
    coalesce(nearby.text_before, '') as text_before,
    nearby.text,
    coalesce(nearby.text_after, '') as text_after,
    nearby.confidence,
    best.segment_index,
    nearby.channel,
    nearby.audio_track
from best
join nearby using (recipe_id, recording_id, segment_index)
order by best.score desc, best.uri, best.segment_index;
