with daily as (
    select * from {{ ref('cagg_unmatched_urls_daily') }}
),

unmatched_days as (
    select
        daily.tenant_id,
        daily.episode_key,
        daily.source,
        (daily.bucket at time zone 'UTC')::date as day,
        daily.requests,
        daily.media_requests,
        daily.downloads,
        daily.listeners,
        daily.first_seen,
        daily.last_seen
    from daily
)

select * from unmatched_days
