with insertion_orders as (
    select * from {{ ref('stg_raw__insertion_orders') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

priced as (
    select
        insertion_orders.tenant_id,
        insertion_orders.insertion_order_id,
        insertion_orders.campaign_id,
        insertion_orders.podcast_id,
        insertion_orders.promo_code,
        insertion_orders.vanity_url,
        insertion_orders.booked_impressions,
        insertion_orders.cpm,
        coalesce(insertion_orders.currency, campaigns.currency) as currency,
        insertion_orders.starts_on,
        insertion_orders.ends_on
    from insertion_orders
    left join campaigns
        on insertion_orders.tenant_id = campaigns.tenant_id and insertion_orders.campaign_id = campaigns.campaign_id
)

select * from priced
