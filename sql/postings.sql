-- Which segments hold a word, and where in their text: `from postings('forty two')`.
-- grain: one row per term of the query, recipe, recording, shard and segment that has it, of all takes and recipes
-- sources: posting_parts, unindexed_parts, terms
-- units: positions count the terms of the segment's text from 1, num_terms is how many these are
-- cost: reads what a compaction wrote down of these terms, and looks through the text of what was committed since
-- example: 5a0e… | 2026-11-21 | 8c1f… | shard 07… | segment_index 7 | 'forty' | [2] | num_terms 3
create or replace macro postings(query) as table
with read as (
    select
        recipe_id,
        "date",
        recording_id,
        shard_id,
        segment_index,
        terms(text) as spelled
    from unindexed_parts
    where
        terms(query) <> []
        and regexp_matches(nfc_normalize(lower(text)), array_to_string(terms(query), '|'))
),
placed as (
    select
        * exclude (spelled),
        len(spelled)::integer as num_terms,
        unnest(spelled) as term,
        generate_subscripts(spelled, 1)::integer as position
    from read
)
select
    recipe_id,
    "date",
    recording_id,
    shard_id,
    segment_index,
    term,
    positions,
    num_terms
from posting_parts
where list_contains(terms(query), term)
union all by name
select
    * exclude (position),
    list(position order by position) as positions
from placed
where list_contains(terms(query), term)
group by all;
