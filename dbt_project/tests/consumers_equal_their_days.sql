-- Weeks and months have the downloads of their days, over the shows and for the whole tenant, and no fewer listeners
-- than any day and no more than all together. Looked at are those that start in the run's slices or
-- up to 30 days before: each that holds a day of it.
{{ config(meta={'dagster': {'ref': {'name': 'cagg_tenant_consumers_monthly'}}}) }}
{% set rollups = {'day': 'daily', 'week': 'weekly', 'month': 'monthly'} %}
with days as (
    select
        tenant_id,
        bucket,
        sum(downloads) as downloads
    from {{ ref('cagg_downloads_daily') }}
    where {{ in_slices('bucket', before_days=30, after_days=30) }}
    group by tenant_id, bucket
),

tenant_days as (
    select
        tenant_id,
        bucket,
        downloads,
        listeners
    from {{ ref('cagg_tenant_consumers_daily') }}
    where {{ in_slices('bucket', before_days=30, after_days=30) }}
),

expected as (
    select
        days.tenant_id,
        periods.period,
        date_trunc(periods.period, days.bucket, 'UTC') as bucket,
        sum(days.downloads) as downloads,
        sum(tenant_days.downloads) as tenant_downloads,
        max(tenant_days.listeners) as at_least,
        sum(tenant_days.listeners) as at_most
    from days
    left join tenant_days
        on days.tenant_id = tenant_days.tenant_id and days.bucket = tenant_days.bucket
    cross join (values ('day'), ('week'), ('month')) as periods (period)
    where
        {{ in_slices("date_trunc(periods.period, days.bucket, 'UTC')", 30, tenant_column='days.tenant_id') }}
    group by days.tenant_id, periods.period, date_trunc(periods.period, days.bucket, 'UTC')
),

by_show as (
    {% for period, name in rollups.items() %}
        select
            tenant_id,
            '{{ period }}' as period,
            bucket,
            sum(downloads) as downloads
        from {{ ref('cagg_consumers_' ~ name) }}
        where {{ in_slices('bucket', before_days=30) }}
        group by tenant_id, bucket
        {% if not loop.last %}union all{% endif %}
    {% endfor %}
),

by_tenant as (
    {% for period, name in rollups.items() %}
        select
            tenant_id,
            '{{ period }}' as period,
            bucket,
            downloads,
            listeners
        from {{ ref('cagg_tenant_consumers_' ~ name) }}
        where {{ in_slices('bucket', before_days=30) }}
        {% if not loop.last %}union all{% endif %}
    {% endfor %}
)

select
    tenant_id,
    period,
    bucket,
    expected.downloads as in_days,
    by_show.downloads as in_shows,
    by_tenant.downloads as in_tenant
from by_show
full join by_tenant using (tenant_id, period, bucket)
full join expected using (tenant_id, period, bucket)
where
    expected.downloads is distinct from by_show.downloads
    or expected.tenant_downloads is distinct from by_tenant.downloads
    or expected.downloads is distinct from by_tenant.downloads
    or by_tenant.listeners not between expected.at_least and expected.at_most
