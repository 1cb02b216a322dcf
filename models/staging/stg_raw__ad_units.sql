with source as (
    select * from {{ source('raw', 'ad_units') }}
),

renamed as (
    select
        tenant_id,
        ad_unit_id,
        campaign_id,
        insertion_order_id,
        episode_id,
        position,
        delivery,
        starts_at_second,
        duration_seconds,
        properties,
        load_id
    from source
)

select * from renamed
