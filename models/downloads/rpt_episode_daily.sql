with daily as (
    select * from {{ ref('cagg_downloads_daily') }}
),

episodes as (
    select * from {{ ref('dim_episodes') }}
),

podcasts as (
    select * from {{ ref('dim_podcasts') }}
),

episode_days as (
    select
        daily.tenant_id,
        daily.episode_key,
        (daily.bucket at time zone 'UTC')::date as day,
        episodes.episode_id,
        episodes.title as episode_title,
        episodes.published_at,
        daily.podcast_id,
        podcasts.title as podcast_title,
        daily.downloads,
        daily.downloads_threshold_unknown,
        daily.listeners,
        daily.households
    from daily
    left join episodes
        on daily.tenant_id = episodes.tenant_id and daily.episode_key = episodes.episode_id
    left join podcasts
        on daily.tenant_id = podcasts.tenant_id and daily.podcast_id = podcasts.podcast_id
)

select * from episode_days
