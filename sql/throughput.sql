-- How fast each run was.
-- grain: one row per whole run, the newest first; `throughput_per_worker` has its children
-- sources: runs
-- units: audio_h hours of decoded audio, wall_s seconds, rtfx audio seconds per wall second, peak_memory_mb 10^6 bytes;
--        busy_share of the model's time in [0, 1], null where it was not measured
-- example: 2026-11-21 18:00 | cpu | num_recordings 12 | audio_h 0.12 | wall_s 9.4 | rtfx 46.0 | num_rejected 1
create or replace view throughput as
select
    started_at, device, num_recordings, num_rejected, num_partial,
    audio_s / 3600 as audio_h,
    wall_s, rtfx, num_words,
    peak_memory_bytes / 1e6 as peak_memory_mb,
    busy_share, num_attempts, recipe_id, run_id
from runs
where stage is null
order by started_at desc, run_id;
