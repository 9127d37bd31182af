-- How sure the words are.
-- grain: one row per tenth of the confidence scale, all ten of them; the last one includes 1.0
-- sources: words
-- units: from_confidence and to_confidence in [0, 1]; share of all words, null without words
-- cost: a full scan of the words
-- example: 0.9 | 1.0 | num_words 412 | share 0.93
create or replace view confidence_histogram as
with counted as (
    select least(floor(confidence * 10), 9)::integer as tenth, count(*) as num_words
    from words
    group by tenth
)
select
    tenths.tenth / 10 as from_confidence,
    (tenths.tenth + 1) / 10 as to_confidence,
    coalesce(counted.num_words, 0) as num_words,
    coalesce(counted.num_words, 0) / nullif(sum(counted.num_words) over (), 0) as share
from (select unnest(range(10)) as tenth) as tenths
left join counted using (tenth)
order by from_confidence;
