-- Whatever the window and model, a tenant's day has the conversions of the facts and their value, by advertiser and
-- currency, to the last digit, the unattributed ones included. Paths may change for as long after a day as a
-- touch reaches.
{{ config(meta={'dagster': {'ref': {'name': 'rpt_attribution_windows_daily'}}}) }}
{% set reach = var('attribution_max_lookback_days') %}
with windows as (
    select distinct unnest(array[{{ var('attribution_windows_days') | join(', ') }}]::integer[]) as window_days
),

both_sides as (
    select
        conversions.tenant_id,
        (conversions.occurred_at at time zone 'UTC')::date as day,
        windows.window_days,
        models.model,
        conversions.sponsor_id,
        conversions.currency,
        1 as conversions,
        conversions.value as revenue
    from {{ ref('fct_conversions') }} as conversions
    cross join {{ ref('attribution_models') }} as models
    cross join windows
    where {{ in_slices('conversions.occurred_at', after_days=reach) }} and models.method <> 'markov'

    union all

    select
        tenant_id,
        day,
        window_days,
        model,
        sponsor_id,
        currency,
        -conversions as conversions,
        -revenue as revenue
    from {{ ref('rpt_attribution_windows_daily') }}
    where {{ in_slices('day', after_days=reach, column_type='date') }}
)

select
    tenant_id,
    day,
    window_days,
    model,
    sponsor_id,
    currency,
    sum(conversions) as conversions_too_few,
    sum(revenue) as revenue_too_little
from both_sides
group by tenant_id, day, window_days, model, sponsor_id, currency
having sum(conversions) <> 0 or sum(revenue) <> 0
