-- Where something was said, best first: `from search('forty two')`, `from search('forty two', max_results := 5)`.
-- grain: one row per segment that holds at least one of the words asked for, the best `max_results` (50) of them
-- sources: segment_parts, recordings_latest
-- units: *_s seconds from the recording's first sample, end exclusive; score: BM25 of the words asked for, and once
--        more the weight of all of them where they stand in the segment as asked (Robertson and Zaragoza 2009, section
--        3.2, k1 = 1.2, b = 0.75, lengths in words; the phrase's weight is ours)
-- cost: reads the text of every segment; `phrase` finds the exact time of words
-- example: s3://archive/a.flac | 31.2–34.0 | score 9.7 | 'eight nine' | 'one forty two' | 'three'
create or replace macro search(query, max_results := 50) as table
with latest as materialized (
    select recipe_id, "date", recording_id, shard_id, uri, num_segments, num_words
    from recordings_latest
),
-- The pattern is one constant, so that each text is looked through once for all words. Its \b knows ASCII only: other
-- texts are split into words instead, which takes five times as long.
heard as materialized (
    select
        latest.uri,
        recipe_id,
        recording_id,
        shard_id,
        segment_index,
        confidence,
        length(text) - length(replace(text, ' ', '')) + 1 as num_words,
        if(
            strlen(text) = length(text),
            regexp_extract_all(
                lower(text), '\b(?:' || array_to_string(regexp_extract_all(lower(query), '[\p{L}\p{N}]+'), '|') || ')\b'
            ),
            list_filter(
                regexp_extract_all(lower(text), '[\p{L}\p{N}]+'),
                lambda word: list_contains(regexp_extract_all(lower(query), '[\p{L}\p{N}]+'), word)
            )
        ) as matches,
        regexp_matches(
            text,
            '(?i)(?:^|[^\p{L}\p{N}])'
            || array_to_string(regexp_extract_all(query, '[\p{L}\p{N}]+'), '[^\p{L}\p{N}]+')
            || '(?:$|[^\p{L}\p{N}])'
        ) as has_phrase
    from segment_parts
    join latest using (recipe_id, "date", recording_id, shard_id)
    where
        regexp_matches(query, '[\p{L}\p{N}]')
        and regexp_matches(text, '(?i)' || array_to_string(regexp_extract_all(query, '[\p{L}\p{N}]+'), '|'))
),
asked as (
    select
        term,
        ln(1 + (any_value(corpus.num_segments) - count(*) + 0.5) / (count(*) + 0.5)) as weight
    from (select unnest(list_distinct(matches)) as term from heard)
    cross join (select sum(num_segments) as num_segments from latest) as corpus
    group by term
),
weights as materialized (
    select
        list({term: term, weight: weight}) as terms,
        sum(weight) as phrase_weight,
        (select sum(num_words) / sum(num_segments) from latest) as mean_words
    from asked
),
best as materialized (
    select
        heard.* exclude (matches, num_words, has_phrase),
        list_sum(
            [
                asked.weight * len(list_filter(matches, lambda word: word = asked.term)) * 2.2
                / (
                    len(list_filter(matches, lambda word: word = asked.term))
                    + 1.2 * (0.25 + 0.75 * num_words / mean_words)
                )
                for asked in weights.terms
            ]
        ) + if(has_phrase, phrase_weight, 0) as score
    from heard
    cross join weights
    where len(matches) > 0
    order by score desc, confidence desc, uri, segment_index
    limit max_results
),
nearby as (
    select
        recipe_id,
        recording_id,
        shard_id,
        segment_index,
        start_s,
        end_s,
        text,
        lag(text, 1, '') over recording as text_before,
        lead(text, 1, '') over recording as text_after
    from segment_parts
    semi join best using (recipe_id, recording_id, shard_id)
    where text <> ''
    window recording as (partition by recipe_id, recording_id, shard_id order by segment_index)
)
select
    best.uri,
    nearby.start_s,
    nearby.end_s,
    best.score,
    nearby.text_before,
    nearby.text,
    nearby.text_after,
    best.confidence,
    best.segment_index
from best
join nearby using (recipe_id, recording_id, shard_id, segment_index)
order by best.score desc, best.confidence desc, best.uri, best.segment_index;
