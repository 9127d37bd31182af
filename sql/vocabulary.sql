-- How often each word was said.
-- grain: one row per word of the newest transcripts, in lower case and without what is neither letter, mark, digit
--        nor apostrophe, a character each in writings without spaces; the most frequent first
-- sources: segments_latest, spaced
-- units: per_million words of all
-- cost: a full scan of the text
-- example: seven | num 31204 | per_million 20344.1
create or replace view vocabulary as
with written as (
    select spelling, count(*) as num
    from (select unnest(string_split(spaced(text), ' ')) as spelling from segments_latest where text <> '')
    group by spelling
),
said as (
    select
        lower(regexp_replace(spelling, '[^\p{L}\p{M}\p{N}'']+', '', 'g')) as word,
        sum(num)::bigint as num
    from written
    group by word
)
select
    word, num,
    num * 1e6 / sum(num) over () as per_million
from said
where word <> ''
order by num desc, word;
