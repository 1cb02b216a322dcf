{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'day']}, {'columns': ['tenant_id', 'campaign_id', 'day']}],
) }}

with credits as (
    select * from {{ ref('fct_attribution_credits') }}
    where {{ in_slices('occurred_at') }}
),

credited_days as (
    select
        credits.tenant_id,
        (credits.occurred_at at time zone 'UTC')::date as day,
        credits.model,
        credits.sponsor_id,
        credits.channel,
        credits.campaign_id,
        credits.currency,
        trim_scale(sum(credits.credit)) as conversions,
        trim_scale(sum(credits.revenue)) as revenue,
        trim_scale(coalesce(sum(credits.credit) filter (where credits.is_new_customer), 0)) as new_customers
    from credits
    group by
        credits.tenant_id,
        (credits.occurred_at at time zone 'UTC')::date,
        credits.model,
        credits.sponsor_id,
        credits.channel,
        credits.campaign_id,
        credits.currency
)

select * from credited_days
