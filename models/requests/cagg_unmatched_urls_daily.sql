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
    source,
    count(*) as requests,
    count(*) filter (where outcome <> 'not_media') as media_requests,
    count(*) filter (where outcome = 'counted') as downloads,
    count(distinct listener_key) as listeners,
    min(occurred_at) as first_seen,
    max(occurred_at) as last_seen
from {{ ref('int_requests__outcomes') }}
where {{ in_slices('occurred_at') }} and episode_id is null
group by tenant_id, {{ time_bucket('occurred_at') }}, episode_key, source
