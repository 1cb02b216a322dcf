-- The campaign report adds up to its facts: impressions in flight, and attributed conversions.
{{ config(meta={'dagster': {'ref': {'name': 'rpt_campaign_daily'}}}) }}
{% set reach = var('attribution_max_lookback_days') %}
with reported as (
    select
        tenant_id,
        campaign_id,
        day,
        impressions,
        conversions
    from {{ ref('rpt_campaign_daily') }}
    where {{ in_slices('day', after_days=reach, column_type='date') }} and (impressions > 0 or conversions > 0)
),

delivered as (
    select
        tenant_id,
        campaign_id,
        (occurred_at at time zone 'UTC')::date as day,
        count(*) as impressions
    from {{ ref('fct_ad_impressions') }}
    where {{ in_slices('occurred_at', after_days=reach) }} and in_flight
    group by tenant_id, campaign_id, (occurred_at at time zone 'UTC')::date
),

credited as (
    select
        tenant_id,
        campaign_id,
        (occurred_at at time zone 'UTC')::date as day,
        sum(credit) as conversions
    from {{ ref('fct_attribution_credits') }}
    where
        {{ in_slices('occurred_at', after_days=reach) }}
        and campaign_id is not null
        and model = '{{ var('attribution_model') }}'
    group by tenant_id, campaign_id, (occurred_at at time zone 'UTC')::date
)

select
    tenant_id,
    campaign_id,
    day
from reported
full join delivered using (tenant_id, campaign_id, day)
full join credited using (tenant_id, campaign_id, day)
where
    coalesce(reported.impressions, 0) <> coalesce(delivered.impressions, 0)
    or coalesce(reported.conversions, 0) <> coalesce(credited.conversions, 0)
