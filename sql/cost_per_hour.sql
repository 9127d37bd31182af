-- What an hour of audio cost.
-- grain: one row per whole run that was told a price, the newest first
-- sources: runs
-- units: device_h hours that its decode runs took, or the run itself where it had none; cost in the currency that
--        gpu_hour_price was given in; cost_per_audio_hour null where no audio was committed
-- example: 2026-11-21 18:00 | audio_h 280.0 | device_h 0.42 | gpu_hour_price 2.5 | cost 1.05 | cost_per_audio_hour 0.00375
create or replace view cost_per_hour as
with children as (
    select parent_run_id as run_id, sum(wall_s) as device_s, max(gpu_hour_price) as gpu_hour_price
    from runs
    where stage = 'decode'
    group by parent_run_id
),
priced as (
    select
        runs.started_at,
        runs.audio_s / 3600 as audio_h,
        coalesce(children.device_s, runs.wall_s) / 3600 as device_h,
        coalesce(runs.gpu_hour_price, children.gpu_hour_price) as gpu_hour_price, runs.recipe_id, runs.run_id
    from runs
    left join children using (run_id)
    where runs.stage is null
)
select
    started_at, audio_h, device_h, gpu_hour_price,
    device_h * gpu_hour_price as cost,
    device_h * gpu_hour_price / nullif(audio_h, 0) as cost_per_audio_hour,
    recipe_id, run_id
from priced
where gpu_hour_price is not null
order by started_at desc, run_id;
