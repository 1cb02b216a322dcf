{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 hour',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'episode_key', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('occurred_at') }} as bucket,
    episode_key,
    min(podcast_id) as podcast_id,
    count(*) as downloads,
    count(distinct listener_key) as listeners,
    count(distinct household_key) as households
from {{ ref('fct_downloads') }}
where {{ in_slices('occurred_at') }}
group by tenant_id, {{ time_bucket('occurred_at') }}, episode_key
