with ad_units as (
    select
        tenant_id,
        ad_unit_id,
        campaign_id,
        insertion_order_id,
        episode_id,
        position,
        delivery,
        starts_at_second,
        duration_seconds
    from {{ ref('stg_raw__ad_units') }}
)

select * from ad_units
