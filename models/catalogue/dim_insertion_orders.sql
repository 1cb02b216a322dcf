with insertion_orders as (
    select
        tenant_id,
        insertion_order_id,
        campaign_id,
        podcast_id,
        promo_code,
        vanity_url,
        booked_impressions,
        cpm,
        currency,
        starts_on,
        ends_on
    from {{ ref('stg_raw__insertion_orders') }}
)

select * from insertion_orders
