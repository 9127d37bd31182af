-- Where something was said: `select * from search('forty two')`, with the neighbouring text.
-- grain: one row per segment that holds at least one of the words asked for, best first
-- sources: segments_latest, words
-- units: start_s seconds from the recording's first sample, of the first word that matches; score: share of the asked
--        words that the segment holds, plus 1 where they stand in it as asked; the more often and surer, the higher
-- example: s3://archive/a.flac | 31.2 | score 2.0 | 'eight nine' | 'one forty two' | 'three'
create or replace macro search(query) as table
with asked as (
    select distinct
        unnest(regexp_extract_all(lower(query), '[\p{L}\p{N}'']+')) as term
),
spelled as (
    select
        uri,
        segment_index,
        start_s,
        unnest(regexp_extract_all(lower(word), '[\p{L}\p{N}'']+')) as term
    from words
),
heard as (
    select
        uri,
        segment_index,
        min(start_s) as start_s,
        count(*) as num_matches,
        count(distinct term) as num_terms
    from spelled
    join asked using (term)
    group by uri, segment_index
),
neighbours as (
    select
        uri,
        segment_index,
        confidence,
        text,
        lag(text, 1, '') over recording as text_before,
        lead(text, 1, '') over recording as text_after,
        concat(' ', trim(regexp_replace(lower(text), '[^\p{L}\p{N}'']+', ' ', 'g')), ' ') as plain_text
    from segments_latest
    where text <> ''
    window recording as (partition by uri order by segment_index)
)
select
    heard.uri,
    heard.start_s,
    heard.num_terms / nullif((select count(*) from asked), 0) + if(
        contains(
            neighbours.plain_text,
            concat(' ', trim(regexp_replace(lower(query), '[^\p{L}\p{N}'']+', ' ', 'g')), ' ')
        ),
        1,
        0
    ) as score,
    neighbours.text_before,
    neighbours.text,
    neighbours.text_after,
    neighbours.confidence,
    heard.segment_index
from heard
join neighbours using (uri, segment_index)
order by score desc, heard.num_matches desc, neighbours.confidence desc, heard.uri, heard.start_s;
