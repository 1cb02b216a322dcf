-- Straight from the raw table, unlike every other model: so the engine, or refresh_metrics_daily(), keeps it fresh
-- even where neither dbt nor Dagster runs.
{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 hour',
    chunk_interval='28 days',
    refresh_every='1 hour',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('occurred_at') }} as bucket,
    event_type,
    source,
    count(*) as events,
    sum(bytes_sent)::bigint as bytes_sent,
    max(occurred_at) as last_event_at
from {{ source('raw', 'listener_events') }}
where {{ in_slices('occurred_at') }}
group by tenant_id, {{ time_bucket('occurred_at') }}, event_type, source
