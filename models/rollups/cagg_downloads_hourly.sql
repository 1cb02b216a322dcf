{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'episode_key', 'bucket'], 'unique': true}],
) }}

with downloads as (
    select * from {{ ref('fct_downloads') }}
),

hourly as (
    select
        downloads.tenant_id,
        date_trunc('hour', downloads.occurred_at, 'UTC') as bucket,
        downloads.episode_key,
        min(downloads.podcast_id) as podcast_id,
        count(*) as downloads,
        count(distinct downloads.listener_key) as listeners,
        count(distinct downloads.household_key) as households
    from downloads
    where {{ in_window('downloads.occurred_at') }}
    group by downloads.tenant_id, date_trunc('hour', downloads.occurred_at, 'UTC'), downloads.episode_key
)

select * from hourly
