{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 day',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'episode_key', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('occurred_at') }} as bucket,
    episode_key,
    min(podcast_id) as podcast_id,
    min(download_window) as download_window,
    count(*) filter (where outcome = 'counted') as downloads,
    count(*) filter (where calendar_day = 'counted') as calendar_day,
    count(*) filter (where rolling_first = 'counted') as rolling_first,
    count(*) filter (where rolling_last = 'counted') as rolling_last
from {{ ref('int_requests__outcomes') }}
where {{ in_slices('occurred_at') }} and calendar_day is not null
group by tenant_id, {{ time_bucket('occurred_at') }}, episode_key
