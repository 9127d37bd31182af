-- Where something was said, best first: `from search('forty two')`, `from search('forty two', max_results := 5)`.
-- grain: one row per segment that holds at least one of the words asked for, the best `max_results` (50) of them
-- sources: segment_parts, recordings_latest
-- units: *_s seconds from the recording's first sample, end exclusive; score: BM25 of the words asked for, and once
--        more the weight of all of them where they stand in the segment as asked (Robertson and Zaragoza 2009, section
--        3.2, k1 = 1.2, b = 0.75; ours: the phrase's weight, and that lengths are letters in eights, rounded up, beside
--        the mean of the segments that hold one of the words)
-- cost: reads the text of every segment, several times as slowly in a lake that nobody compacted; `phrase` finds times
-- example: s3://archive/a.flac | 31.2–34.0 | score 9.7 | 'eight nine' | 'one forty two' | 'three'
create or replace macro search(query, max_results := 50) as table
with latest as materialized (
    select
        row_number() over () as number,
        recipe_id,
        recording_id,
        shard_id,
        uri,
        num_segments,
        num_words
    from recordings_latest
),
-- The pattern is one constant, so that each text is looked through once for all words. Its \b knows ASCII only: other
-- texts are split into words instead, which takes five times as long.
read as (
    select
        recipe_id,
        recording_id,
        shard_id,
        segment_index,
        confidence,
        text,
        case
            when strlen(text) = length(text) then
                regexp_extract_all(
                    text, '(?i)\b(?:' || array_to_string(regexp_extract_all(query, '[\p{L}\p{N}]+'), '|') || ')\b'
                )
            when regexp_matches(text, '(?i)' || array_to_string(regexp_extract_all(query, '[\p{L}\p{N}]+'), '|')) then
                list_filter(
                    regexp_extract_all(lower(text), '[\p{L}\p{N}]+'),
                    lambda word: list_contains(regexp_extract_all(lower(query), '[\p{L}\p{N}]+'), word)
                )
            else []
        end as matches
    from segment_parts
    where regexp_matches(query, '[\p{L}\p{N}]')
),
-- What counts of a segment. Its text goes on only where all words asked for may stand in it as asked: what passes
-- through a join costs.
heard as (
    select
        recipe_id,
        recording_id,
        shard_id,
        segment_index,
        confidence,
        (length(text) + 7) // 8 as num_eights,
        len(matches) as num_matches,
        array_to_string(matches, '  ') as matched,
        if(
            len(matches) >= len(regexp_extract_all(query, '[\p{L}\p{N}]+'))
            and len(regexp_extract_all(query, '[\p{L}\p{N}]+')) > 1,
            text,
            ''
        ) as text
    from read
),
found as materialized (
    select
        latest.number,
        heard.segment_index,
        heard.confidence,
        heard.matched,
        heard.num_eights,
        case
            when len(regexp_extract_all(query, '[\p{L}\p{N}]+')) = 1 then true
            when heard.text = '' then false
            else
                regexp_matches(
                    heard.text,
                    '(?i)(?:^|[^\p{L}\p{N}])'
                    || array_to_string(regexp_extract_all(query, '[\p{L}\p{N}]+'), '[^\p{L}\p{N}]+')
                    || '(?:$|[^\p{L}\p{N}])'
                )
        end as has_phrase
    from heard
    -- compared with a column of the other side (so with 0): a filter would look through each text a second time
    join latest
        on
            heard.recording_id = latest.recording_id
            and heard.recipe_id = latest.recipe_id
            and heard.shard_id = latest.shard_id
            and heard.num_matches > least(latest.num_words, 0)
),
-- Few segments differ in what counts, so that scores are worked out by kind and not by segment.
kinds as materialized (
    select matched, num_eights, has_phrase, count(*) as num
    from found
    group by matched, num_eights, has_phrase
),
said as materialized (
    select matched, ' ' || lower(matched) || ' ' as spelled, sum(num) as num
    from kinds
    group by matched
),
weights as materialized (
    select
        list({term: term, weight: weight} order by term) as terms,
        sum(weight) as phrase_weight,
        (select sum(num * num_eights) / sum(num) from kinds) as mean_eights
    from (
        select
            term,
            ln(1 + (any_value(corpus.num_segments) - sum(num) + 0.5) / (sum(num) + 0.5)) as weight
        from said
        cross join (select unnest(list_distinct(regexp_extract_all(lower(query), '[\p{L}\p{N}]+'))) as term) as asked
        cross join (select sum(num_segments) as num_segments from latest) as corpus
        where contains(said.spelled, ' ' || term || ' ')
        group by term
    )
),
counted as (
    select
        matched,
        mean_eights,
        phrase_weight,
        list_transform(
            terms,
            lambda asked: {
                weight: asked.weight,
                num: (strlen(spelled) - strlen(replace(spelled, ' ' || asked.term || ' ', '')))
                / (strlen(asked.term) + 2)
            }
        ) as terms
    from said
    cross join weights
),
best_kinds as materialized (
    select
        kinds.matched,
        kinds.num_eights,
        kinds.has_phrase,
        list_sum(
            list_transform(
                terms,
                lambda asked: asked.weight * asked.num * 2.2
                / (asked.num + 1.2 * (0.25 + 0.75 * kinds.num_eights / mean_eights))
            )
        ) + if(kinds.has_phrase, phrase_weight, 0) as score
    from kinds
    join counted using (matched)
    qualify rank() over (order by score desc) <= max_results
),
best as materialized (
    select
        latest.uri,
        latest.recipe_id,
        latest.recording_id,
        latest.shard_id,
        found.segment_index,
        found.confidence,
        best_kinds.score
    from found
    join best_kinds using (matched, num_eights, has_phrase)
    join latest using (number)
    order by best_kinds.score desc, found.confidence desc, latest.uri, found.segment_index
    limit max_results
),
-- By recording alone, which is cheaper to compare; other recipes' rows of it fall out below.
nearby as (
    select
        recipe_id,
        recording_id,
        shard_id,
        segment_index,
        start_s,
        end_s,
        text,
        lag(nullif(text, '') ignore nulls) over recording as text_before,
        lead(nullif(text, '') ignore nulls) over recording as text_after
    from segment_parts
    semi join best using (recording_id)
    window recording as (partition by recipe_id, recording_id, shard_id order by segment_index)
)
select
    best.uri,
    nearby.start_s,
    nearby.end_s,
    best.score,
    coalesce(nearby.text_before, '') as text_before,
    nearby.text,
    coalesce(nearby.text_after, '') as text_after,
    best.confidence,
    best.segment_index
from best
join nearby using (recipe_id, recording_id, shard_id, segment_index)
order by best.score desc, best.confidence desc, best.uri, best.segment_index;
