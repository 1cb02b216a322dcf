{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='7 days',
    indexes=[{'columns': ['occurred_at']}, {'columns': ['tenant_id', 'episode_key', 'occurred_at']}],
) }}

with outcomes as (
    select * from {{ ref('int_requests__outcomes') }}
),

downloads as (
    select
        outcomes.tenant_id,
        outcomes.event_id as download_id,
        outcomes.occurred_at,
        outcomes.source,
        outcomes.episode_key,
        outcomes.episode_id,
        outcomes.podcast_id,
        outcomes.household_key,
        outcomes.listener_key,
        outcomes.agent_list,
        outcomes.agent_name,
        outcomes.agent_category,
        outcomes.device_name,
        outcomes.device_category,
        outcomes.referrer_name,
        outcomes.country_code,
        outcomes.region_code,
        outcomes.bytes_sent,
        outcomes.download_window,
        outcomes.threshold_basis
    from outcomes
    where {{ in_slices('outcomes.occurred_at') }} and outcomes.outcome = 'counted'
)

select * from downloads
