with windows as (
    select * from {{ ref('cagg_download_windows_daily') }}
),

window_days as (
    select
        windows.tenant_id,
        windows.episode_key,
        (windows.bucket at time zone 'UTC')::date as day,
        windows.podcast_id,
        windows.download_window,
        windows.downloads,
        windows.calendar_day,
        windows.rolling_first,
        windows.rolling_last
    from windows
)

select * from window_days
