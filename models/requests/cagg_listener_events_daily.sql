{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 day',
    chunk_interval='28 days',
    refresh_every='1 hour',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('bucket') }} as bucket,
    event_type,
    source,
    sum(events)::bigint as events,
    sum(bytes_sent)::bigint as bytes_sent,
    max(last_event_at) as last_event_at
from {{ ref('cagg_listener_events_hourly') }}
where {{ in_slices('bucket') }}
group by tenant_id, {{ time_bucket('bucket') }}, event_type, source
