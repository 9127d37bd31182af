-- Which words became more or less frequent from a date on: `from vocabulary_drift(date '2026-07-01')`.
-- grain: one row per word of the newest transcripts, the surest change first
-- sources: segments_latest, spaced
-- units: per_million words before the date (of modified_at) and since; log_ratio: logarithm to base 2 of since / before, with
--        half a word added to both counts; surprise: log-likelihood ratio G², above 10.8 one word in a thousand is by chance
--        (Dunning 1993)
-- cost: a full scan of the text
-- example: strike | num_before 3 | num_since 214 | 0.4 | 31.0 | log_ratio 6.0 | surprise 240.1
create or replace macro vocabulary_drift(since) as table
with written as (
    select
        spelling,
        count(*) filter (where not is_since) as num_before,
        count(*) filter (where is_since) as num_since
    from (
        select
            unnest(string_split(spaced(text), ' ')) as spelling,
            "date" >= since::date as is_since
        from segments_latest
        where text <> ''
    )
    group by spelling
),
said as (
    select
        lower(regexp_replace(spelling, '[^\p{L}\p{M}\p{N}'']+', '', 'g')) as word,
        sum(num_before)::bigint as num_before,
        sum(num_since)::bigint as num_since
    from written
    group by word
),
counted as (
    select
        *,
        sum(num_before) over ()::double as all_before,
        sum(num_since) over ()::double as all_since
    from said
    where word <> ''
),
expected as (
    select
        *,
        all_before * (num_before + num_since) / (all_before + all_since) as expected_before,
        all_since * (num_before + num_since) / (all_before + all_since) as expected_since
    from counted
    where all_before > 0 and all_since > 0
)
select
    word, num_before, num_since,
    num_before * 1e6 / all_before as per_million_before,
    num_since * 1e6 / all_since as per_million_since,
    log2((num_since + 0.5) / all_since * all_before / (num_before + 0.5)) as log_ratio,
    2 * (
        if(num_before > 0, num_before * ln(num_before / expected_before), 0)
        + if(num_since > 0, num_since * ln(num_since / expected_since), 0)
    ) as surprise
from expected
order by surprise desc, word;
