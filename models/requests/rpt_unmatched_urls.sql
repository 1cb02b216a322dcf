with unmatched_days as (
    select * from {{ ref('rpt_unmatched_urls_daily') }}
),

unmatched_urls as (
    select
        unmatched_days.tenant_id,
        unmatched_days.episode_key,
        unmatched_days.source,
        count(*) as days,
        sum(unmatched_days.requests)::bigint as requests,
        sum(unmatched_days.media_requests)::bigint as media_requests,
        sum(unmatched_days.downloads)::bigint as downloads,
        min(unmatched_days.first_seen) as first_seen,
        max(unmatched_days.last_seen) as last_seen
    from unmatched_days
    group by unmatched_days.tenant_id, unmatched_days.episode_key, unmatched_days.source
)

select * from unmatched_urls
