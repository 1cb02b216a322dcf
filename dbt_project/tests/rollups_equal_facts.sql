-- The rollups say of every tenant and UTC day what the facts say.
{{ config(meta={'dagster': {'ref': {'name': 'cagg_downloads_daily'}}}) }}
with facts as (
    select
        tenant_id,
        date_trunc('day', occurred_at, 'UTC') as day,
        count(*) as downloads
    from {{ ref('fct_downloads') }}
    where {{ in_slices('occurred_at') }}
    group by tenant_id, date_trunc('day', occurred_at, 'UTC')
),

hourly as (
    select
        tenant_id,
        date_trunc('day', bucket, 'UTC') as day,
        sum(downloads) as downloads
    from {{ ref('cagg_downloads_hourly') }}
    where {{ in_slices('bucket') }}
    group by tenant_id, date_trunc('day', bucket, 'UTC')
),

daily as (
    select
        tenant_id,
        bucket as day,
        sum(downloads) as downloads
    from {{ ref('cagg_downloads_daily') }}
    where {{ in_slices('bucket') }}
    group by tenant_id, bucket
),

waterfall as (
    select
        tenant_id,
        bucket as day,
        sum(requests) as downloads
    from {{ ref('cagg_request_outcomes_daily') }}
    where {{ in_slices('bucket') }} and outcome = 'counted'
    group by tenant_id, bucket
)

select
    tenant_id,
    day,
    facts.downloads as in_facts,
    hourly.downloads as in_hourly,
    daily.downloads as in_daily,
    waterfall.downloads as in_waterfall
from facts
full join hourly using (tenant_id, day)
full join daily using (tenant_id, day)
full join waterfall using (tenant_id, day)
where
    facts.downloads is distinct from hourly.downloads
    or facts.downloads is distinct from daily.downloads
    or facts.downloads is distinct from waterfall.downloads
