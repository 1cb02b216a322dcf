-- Under every model the credits of a conversion sum to 1 and its revenue to its value; no credit is without a
-- conversion. Credits are refreshed for as long after a window as an exposure can reach.
{{ config(meta={'dagster': {'ref': {'name': 'fct_attribution_credits'}}}) }}
{% set reach = var('attribution_max_lookback_days') %}
with conversions as (
    select
        tenant_id,
        conversion_id,
        occurred_at,
        value
    from {{ ref('fct_conversions') }}
    where {{ in_window('occurred_at', after_days=reach) }}
),

credits as (
    select
        tenant_id,
        conversion_id,
        occurred_at,
        model,
        sum(credit) as credit,
        sum(revenue) as revenue
    from {{ ref('fct_attribution_credits') }}
    where {{ in_window('occurred_at', after_days=reach) }}
    group by tenant_id, conversion_id, occurred_at, model
)

select
    tenant_id,
    conversion_id,
    occurred_at,
    credits.model,
    conversions.value,
    credits.credit,
    credits.revenue
from conversions
full join credits using (tenant_id, conversion_id, occurred_at)
where
    conversions.value is null
    or credits.credit is null
    or abs(credits.credit - 1) > 0.000001
    or abs(credits.revenue - conversions.value) > 0.000001
