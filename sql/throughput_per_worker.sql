-- How fast each worker was.
-- grain: one row per process that carried out child runs, and stage; the most audio first
-- sources: runs
-- units: audio_h hours of decoded audio, wall_s seconds, both summed over its runs; rtfx audio seconds per wall second;
--        busy_share in [0, 1], the mean over the time; peak_memory_mb 10^6 bytes, the largest
-- example: gpu-3:4711 | decode | num_runs 14 | audio_h 280.0 | wall_s 1510 | rtfx 667 | busy_share 0.97
create or replace view throughput_per_worker as
select
    worker, stage,
    count(*) as num_runs,
    sum(audio_s) / 3600 as audio_h,
    sum(wall_s) as wall_s,
    sum(audio_s) / nullif(sum(wall_s), 0) as rtfx,
    sum(busy_share * wall_s) / nullif(sum(wall_s) filter (where busy_share is not null), 0) as busy_share,
    max(peak_memory_bytes) / 1e6 as peak_memory_mb,
    max(started_at) as last_started_at
from runs
where worker is not null
group by worker, stage
order by audio_h desc, worker, stage;
