-- Where each recording's seconds went: speech_s + dropped_s = decoded_s, and what the header claims beyond that.
-- grain: one row per URI, rejected recordings too; where tracks or channels were transcribed each by itself, speech_s and
--        dropped_s count all of them
-- sources: recordings_latest, dropped_intervals
-- units: *_s seconds; speech_share in [0, 1], null where nothing was decoded; missing_s: declared, but not decoded
-- example: s3://archive/a.flac | ok | decoded_s 12.48 | speech_s 9.02 | dropped_s 3.46 | 'silence 3.46 s' | missing_s 0.0
create or replace view coverage as
with dropped as (
    select uri, string_agg(format('{} {:.2f} s', reason, reason_s), ', ' order by reason) as dropped_as
    from (select uri, reason, sum(duration_s) as reason_s from dropped_intervals group by uri, reason)
    group by uri
)
select
    recordings_latest.uri, recordings_latest.status, recordings_latest.reason, recordings_latest.declared_s,
    recordings_latest.decoded_s, recordings_latest.speech_s, recordings_latest.dropped_s,
    coalesce(dropped.dropped_as, '') as dropped_as,
    greatest(coalesce(recordings_latest.declared_s, 0) - recordings_latest.decoded_s, 0) as missing_s,
    recordings_latest.speech_s / nullif(recordings_latest.speech_s + recordings_latest.dropped_s, 0) as speech_share
from recordings_latest
left join dropped using (uri)
order by uri;
