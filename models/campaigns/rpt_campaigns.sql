with campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

sponsors as (
    select * from {{ ref('stg_raw__sponsors') }}
),

insertion_orders as (
    select * from {{ ref('stg_raw__insertion_orders') }}
),

campaign_days as (
    select * from {{ ref('rpt_campaign_daily') }}
),

ad_impressions as (
    select * from {{ ref('fct_ad_impressions') }}
),

booked as (
    select
        insertion_orders.tenant_id,
        insertion_orders.campaign_id,
        sum(insertion_orders.booked_impressions) as booked_impressions
    from insertion_orders
    group by insertion_orders.tenant_id, insertion_orders.campaign_id
),

to_date as (
    select
        campaign_days.tenant_id,
        campaign_days.campaign_id,
        sum(campaign_days.impressions) as impressions,
        sum(campaign_days.spend) as spend,
        sum(campaign_days.conversions) as conversions,
        sum(campaign_days.revenue) as revenue,
        sum(campaign_days.new_customers) as new_customers,
        sum(campaign_days.spend_rows_other_currency) as spend_rows_other_currency,
        sum(campaign_days.conversions_other_currency) as conversions_other_currency
    from campaign_days
    group by campaign_days.tenant_id, campaign_days.campaign_id
),

-- Households are counted from the exposures: those of the days cannot be added up.
reached as (
    select
        ad_impressions.tenant_id,
        ad_impressions.campaign_id,
        count(distinct ad_impressions.household_key) as reach,
        count(distinct ad_impressions.listener_key) as listeners
    from ad_impressions
    where ad_impressions.in_flight
    group by ad_impressions.tenant_id, ad_impressions.campaign_id
),

campaigns_to_date as (
    select
        campaigns.tenant_id,
        campaigns.campaign_id,
        campaigns.name as campaign_name,
        campaigns.sponsor_id,
        sponsors.name as sponsor_name,
        campaigns.flight_starts_at,
        campaigns.flight_ends_at,
        campaigns.currency,
        booked.booked_impressions::bigint as booked_impressions,
        coalesce(to_date.impressions, 0)::bigint as impressions,
        coalesce(reached.reach, 0) as reach,
        coalesce(reached.listeners, 0) as listeners,
        (to_date.impressions / nullif(reached.reach, 0))::double precision as frequency,
        coalesce(to_date.spend, 0) as spend,
        coalesce(to_date.conversions, 0) as conversions,
        coalesce(to_date.revenue, 0) as revenue,
        coalesce(to_date.new_customers, 0) as new_customers,
        (1000 * to_date.spend / nullif(to_date.impressions, 0))::double precision as ecpm,
        (to_date.spend / nullif(to_date.conversions, 0))::double precision as cpa,
        (to_date.revenue / nullif(to_date.spend, 0))::double precision as roas,
        coalesce(to_date.spend_rows_other_currency, 0)::bigint as spend_rows_other_currency,
        coalesce(to_date.conversions_other_currency, 0)::bigint as conversions_other_currency
    from campaigns
    left join sponsors
        on campaigns.tenant_id = sponsors.tenant_id and campaigns.sponsor_id = sponsors.sponsor_id
    left join booked
        on campaigns.tenant_id = booked.tenant_id and campaigns.campaign_id = booked.campaign_id
    left join to_date
        on campaigns.tenant_id = to_date.tenant_id and campaigns.campaign_id = to_date.campaign_id
    left join reached
        on campaigns.tenant_id = reached.tenant_id and campaigns.campaign_id = reached.campaign_id
)

select * from campaigns_to_date
