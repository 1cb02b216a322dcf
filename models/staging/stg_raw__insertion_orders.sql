with source as (
    select * from {{ source('raw', 'insertion_orders') }}
),

renamed as (
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
        ends_on,
        properties,
        load_id
    from source
)

select * from renamed
