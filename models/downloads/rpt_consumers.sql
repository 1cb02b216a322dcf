with show_days as (
    select * from {{ ref('cagg_consumers_daily') }}
),

show_weeks as (
    select * from {{ ref('cagg_consumers_weekly') }}
),

show_months as (
    select * from {{ ref('cagg_consumers_monthly') }}
),

tenant_days as (
    select * from {{ ref('cagg_tenant_consumers_daily') }}
),

tenant_weeks as (
    select * from {{ ref('cagg_tenant_consumers_weekly') }}
),

tenant_months as (
    select * from {{ ref('cagg_tenant_consumers_monthly') }}
),

podcasts as (
    select * from {{ ref('dim_podcasts') }}
),

periods as (
    select
        tenant_id,
        'show' as scope,
        podcast_id,
        'day' as period,
        bucket,
        downloads,
        listeners,
        households
    from show_days
    union all
    select
        tenant_id,
        'show' as scope,
        podcast_id,
        'week' as period,
        bucket,
        downloads,
        listeners,
        households
    from show_weeks
    union all
    select
        tenant_id,
        'show' as scope,
        podcast_id,
        'month' as period,
        bucket,
        downloads,
        listeners,
        households
    from show_months
    union all
    select
        tenant_id,
        'tenant' as scope,
        null::text as podcast_id,
        'day' as period,
        bucket,
        downloads,
        listeners,
        households
    from tenant_days
    union all
    select
        tenant_id,
        'tenant' as scope,
        null::text as podcast_id,
        'week' as period,
        bucket,
        downloads,
        listeners,
        households
    from tenant_weeks
    union all
    select
        tenant_id,
        'tenant' as scope,
        null::text as podcast_id,
        'month' as period,
        bucket,
        downloads,
        listeners,
        households
    from tenant_months
),

consumers as (
    select
        periods.tenant_id,
        periods.scope,
        periods.podcast_id,
        podcasts.title as podcast_title,
        periods.period,
        (periods.bucket at time zone 'UTC')::date as period_start,
        periods.downloads,
        periods.listeners,
        periods.households,
        periods.downloads / nullif(periods.listeners, 0)::double precision as downloads_per_listener
    from periods
    left join podcasts
        on periods.tenant_id = podcasts.tenant_id and periods.podcast_id = podcasts.podcast_id
)

select * from consumers
