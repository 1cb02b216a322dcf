{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 day',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('occurred_at') }} as bucket,
    count(*) as downloads,
    count(distinct listener_key) as listeners,
    count(distinct household_key) as households
from {{ ref('fct_downloads') }}
where {{ in_slices('occurred_at') }}
group by tenant_id, {{ time_bucket('occurred_at') }}
