-- Two recipes side by side: `from compare_recipes('5a0e…', '77b1…')`.
-- grain: one row per recording (version of an object) that both transcribed, the most different first
-- sources: recordings, segments, word_differences, joined
-- units: num_different words, as `word_differences` lists them; different_share of the first recipe's words, null where it
--        has none
-- cost: a full scan of the words of both recipes
-- example: s3://archive/a.flac | num_different 2 | 0.065 | 'one forty two' | 'one fourteen two' | 31 | 31
create or replace macro compare_recipes(first_recipe, second_recipe) as table
with shared as (
    select recording_id
    from recordings
    where recipe_id in (first_recipe, second_recipe)
    group by recording_id
    having count(distinct recipe_id) = 2
),
texts as (
    select
        recipe_id, recording_id,
        joined(list(text order by segment_index) filter (where text <> '')) as text
    from segments
    semi join shared using (recording_id)
    where recipe_id in (first_recipe, second_recipe)
    group by recipe_id, recording_id
),
transcribed as (
    select recordings.*, coalesce(texts.text, '') as text
    from recordings
    left join texts using (recipe_id, recording_id)
    where recordings.recipe_id in (first_recipe, second_recipe)
),
differing as (
    select recording_id, count(*) as num_different
    from word_differences(first_recipe, second_recipe)
    group by recording_id
)
select
    first_one.uri, coalesce(differing.num_different, 0) as num_different,
    coalesce(differing.num_different, 0) / nullif(first_one.num_words, 0) as different_share,
    first_one.text as first_text, second_one.text as second_text, first_one.num_words as first_num_words,
    second_one.num_words as second_num_words, first_one.status as first_status, second_one.status as second_status,
    recording_id
from transcribed as first_one
join transcribed as second_one using (recording_id)
left join differing using (recording_id)
where first_one.recipe_id = first_recipe and second_one.recipe_id = second_recipe
order by num_different desc, first_one.uri, recording_id;
