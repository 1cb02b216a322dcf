{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'campaign_id', 'day'], 'unique': true}],
) }}

with ad_impressions as (
    select * from {{ ref('fct_ad_impressions') }}
),

credits as (
    select * from {{ ref('fct_attribution_credits') }}
),

spend as (
    select * from {{ ref('stg_raw__spend') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

delivered as (
    select
        ad_impressions.tenant_id,
        ad_impressions.campaign_id,
        (ad_impressions.occurred_at at time zone 'UTC')::date as day,
        count(*) as impressions,
        count(distinct ad_impressions.household_key) as reach,
        count(distinct ad_impressions.listener_key) as listeners
    from ad_impressions
    where {{ in_slices('ad_impressions.occurred_at') }} and ad_impressions.in_flight
    group by
        ad_impressions.tenant_id, ad_impressions.campaign_id, (ad_impressions.occurred_at at time zone 'UTC')::date
),

spent as (
    select
        spend.tenant_id,
        spend.campaign_id,
        spend.spend_date as day,
        sum(spend.amount) filter (
            where coalesce(spend.currency, campaigns.currency) = campaigns.currency
        ) as spend,
        count(*) filter (where spend.currency <> campaigns.currency) as spend_rows_other_currency
    from spend
    inner join campaigns
        on spend.tenant_id = campaigns.tenant_id and spend.campaign_id = campaigns.campaign_id
    where {{ in_slices('spend.spend_date', column_type='date') }}
    group by spend.tenant_id, spend.campaign_id, spend.spend_date
),

converted as (
    select
        credits.tenant_id,
        credits.campaign_id,
        (credits.occurred_at at time zone 'UTC')::date as day,
        sum(credits.credit) as conversions,
        sum(credits.credit) filter (where credits.is_new_customer) as new_customers,
        sum(credits.revenue) filter (
            where coalesce(credits.currency, campaigns.currency) = campaigns.currency
        ) as revenue,
        count(*) filter (
            where credits.revenue <> 0 and credits.currency <> campaigns.currency
        ) as conversions_other_currency
    from credits
    inner join campaigns
        on credits.tenant_id = campaigns.tenant_id and credits.campaign_id = campaigns.campaign_id
    where {{ in_slices('credits.occurred_at') }} and credits.model = '{{ var('attribution_model') }}'
    group by credits.tenant_id, credits.campaign_id, (credits.occurred_at at time zone 'UTC')::date
),

days as (
    select
        tenant_id,
        campaign_id,
        day
    from delivered
    union
    select
        tenant_id,
        campaign_id,
        day
    from spent
    union
    select
        tenant_id,
        campaign_id,
        day
    from converted
),

figures as (
    select
        days.tenant_id,
        days.campaign_id,
        days.day,
        campaigns.currency,
        coalesce(delivered.impressions, 0) as impressions,
        coalesce(delivered.reach, 0) as reach,
        coalesce(delivered.listeners, 0) as listeners,
        coalesce(spent.spend, 0) as spend,
        coalesce(converted.conversions, 0) as conversions,
        coalesce(converted.revenue, 0) as revenue,
        coalesce(converted.new_customers, 0) as new_customers,
        coalesce(spent.spend_rows_other_currency, 0) as spend_rows_other_currency,
        coalesce(converted.conversions_other_currency, 0) as conversions_other_currency
    from days
    inner join campaigns
        on days.tenant_id = campaigns.tenant_id and days.campaign_id = campaigns.campaign_id
    left join delivered
        on
            days.tenant_id = delivered.tenant_id
            and days.campaign_id = delivered.campaign_id
            and days.day = delivered.day
    left join spent
        on
            days.tenant_id = spent.tenant_id
            and days.campaign_id = spent.campaign_id
            and days.day = spent.day
    left join converted
        on
            days.tenant_id = converted.tenant_id
            and days.campaign_id = converted.campaign_id
            and days.day = converted.day
),

campaign_days as (
    select
        figures.tenant_id,
        figures.campaign_id,
        figures.day,
        figures.currency,
        figures.impressions,
        figures.reach,
        figures.listeners,
        figures.impressions / nullif(figures.reach, 0)::double precision as frequency,
        figures.spend,
        figures.conversions,
        figures.revenue,
        figures.new_customers,
        (1000 * figures.spend / nullif(figures.impressions, 0))::double precision as ecpm,
        (figures.spend / nullif(figures.conversions, 0))::double precision as cpa,
        (figures.revenue / nullif(figures.spend, 0))::double precision as roas,
        figures.spend_rows_other_currency,
        figures.conversions_other_currency
    from figures
)

select * from campaign_days
