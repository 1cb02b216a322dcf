{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 day',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'source', 'outcome', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('occurred_at') }} as bucket,
    podcast_id,
    source,
    outcome,
    download_window,
    threshold_basis,
    agent_list,
    count(*) as requests
from {{ ref('int_requests__outcomes') }}
where {{ in_slices('occurred_at') }}
group by
    tenant_id,
    {{ time_bucket('occurred_at') }},
    podcast_id,
    source,
    outcome,
    download_window,
    threshold_basis,
    agent_list
