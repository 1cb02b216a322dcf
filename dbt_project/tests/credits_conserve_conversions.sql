-- Under every model each conversion is credited as a whole, to the last digit, zero-value ones included: its credits
-- add up to 1 and their revenue to its value. No credit is without a conversion, and none is negative. So it is for
-- every sum of conversions: a tenant's, a day's. Paths may change for as long after a day as a touch reaches.
{{ config(meta={'dagster': {'ref': {'name': 'fct_attribution_credits'}}}) }}
{% set reach = var('attribution_max_lookback_days') %}
with conversions as (
    select
        conversions.tenant_id,
        conversions.conversion_id,
        conversions.occurred_at,
        conversions.value,
        conversions.currency,
        models.model
    from {{ ref('fct_conversions') }} as conversions
    cross join {{ ref('attribution_models') }} as models
    where {{ in_slices('conversions.occurred_at', after_days=reach) }} and models.method <> 'markov'
),

credits as (
    select
        tenant_id,
        conversion_id,
        occurred_at,
        model,
        min(currency) as currency,
        min(credit) as least_credit,
        sum(credit) as credit,
        sum(revenue) as revenue
    from {{ ref('fct_attribution_credits') }}
    where {{ in_slices('occurred_at', after_days=reach) }}
    group by tenant_id, conversion_id, occurred_at, model
)

select
    tenant_id,
    conversion_id,
    occurred_at,
    model,
    conversions.value,
    credits.credit,
    credits.revenue
from conversions
full join credits using (tenant_id, conversion_id, occurred_at, model)
where
    conversions.value is null
    or credits.credit is null
    or credits.credit <> 1
    or credits.least_credit <= 0
    or credits.revenue <> conversions.value
    or credits.currency is distinct from conversions.currency
