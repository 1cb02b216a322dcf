with source as (
    select * from {{ source('raw', 'campaigns') }}
),

renamed as (
    select
        tenant_id,
        campaign_id,
        sponsor_id,
        name,
        starts_at as flight_starts_at,
        ends_at as flight_ends_at,
        conversion_actions,
        lookback_days,
        currency,
        properties,
        load_id
    from source
)

select * from renamed
