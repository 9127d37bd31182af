-- Which reasons to doubt a segment occur how often.
-- grain: one row per flag, the most frequent first; a segment with two flags counts in both
-- sources: suspicious_segments
-- units: duration_s seconds, the sum over the segments; mean_confidence in [0, 1]
-- example: repetition | num_segments 31 | duration_s 122.5 | mean_confidence 0.61
create or replace view flag_counts as
select
    flag,
    count(*) as num_segments,
    sum(end_s - start_s) as duration_s,
    avg(confidence) as mean_confidence
from (select unnest(flags) as flag, start_s, end_s, confidence from suspicious_segments)
group by flag
order by num_segments desc, flag;
