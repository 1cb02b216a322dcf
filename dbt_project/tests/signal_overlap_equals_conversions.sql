-- Each conversion stands in one combination of signals: a tenant's day has the conversions of the facts and their
-- value. Paths may change for as long after a day as a touch reaches.
{{ config(meta={'dagster': {'ref': {'name': 'rpt_signal_overlap_daily'}}}) }}
{% set reach = var('attribution_max_lookback_days') %}
with both_sides as (
    select
        tenant_id,
        (occurred_at at time zone 'UTC')::date as day,
        sponsor_id,
        currency,
        1 as conversions,
        value as revenue
    from {{ ref('fct_conversions') }}
    where {{ in_slices('occurred_at', after_days=reach) }}

    union all

    select
        tenant_id,
        day,
        sponsor_id,
        currency,
        -conversions as conversions,
        -revenue as revenue
    from {{ ref('rpt_signal_overlap_daily') }}
    where {{ in_slices('day', after_days=reach, column_type='date') }}
)

select
    tenant_id,
    day,
    sponsor_id,
    currency,
    sum(conversions) as conversions_too_few,
    sum(revenue) as revenue_too_little
from both_sides
group by tenant_id, day, sponsor_id, currency
having sum(conversions) <> 0 or sum(revenue) <> 0
