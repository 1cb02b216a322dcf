-- Under every model a tenant's day has the conversions of the facts and their value, by advertiser and currency, to the
-- last digit, the unattributed ones included. A campaign has those that its own report shows. Paths may change
-- for as long after a day as a touch reaches.
{{ config(meta={'dagster': {'ref': {'name': 'rpt_attribution_daily'}}}) }}
{% set reach = var('attribution_max_lookback_days') %}
with both_sides as (
    select
        conversions.tenant_id,
        (conversions.occurred_at at time zone 'UTC')::date as day,
        models.model,
        conversions.sponsor_id,
        null as campaign_id,
        conversions.currency,
        1 as conversions,
        conversions.value as revenue
    from {{ ref('fct_conversions') }} as conversions
    cross join {{ ref('attribution_models') }} as models
    where {{ in_slices('conversions.occurred_at', after_days=reach) }} and models.method <> 'markov'

    union all

    select
        tenant_id,
        day,
        model,
        sponsor_id,
        null as campaign_id,
        currency,
        -conversions as conversions,
        -revenue as revenue
    from {{ ref('rpt_attribution_daily') }}
    where {{ in_slices('day', after_days=reach, column_type='date') }}

    union all

    select
        tenant_id,
        day,
        'campaign report' as model,
        null as sponsor_id,
        campaign_id,
        null as currency,
        conversions,
        0 as revenue
    from {{ ref('rpt_campaign_daily') }}
    where {{ in_slices('day', after_days=reach, column_type='date') }}

    union all

    select
        tenant_id,
        day,
        'campaign report' as model,
        null as sponsor_id,
        campaign_id,
        null as currency,
        -conversions as conversions,
        0 as revenue
    from {{ ref('rpt_attribution_daily') }}
    where
        {{ in_slices('day', after_days=reach, column_type='date') }}
        and model = '{{ var('attribution_model') }}'
        and campaign_id is not null
)

select
    tenant_id,
    day,
    model,
    sponsor_id,
    campaign_id,
    currency,
    sum(conversions) as conversions_too_few,
    sum(revenue) as revenue_too_little
from both_sides
group by tenant_id, day, model, sponsor_id, campaign_id, currency
having sum(conversions) <> 0 or sum(revenue) <> 0
