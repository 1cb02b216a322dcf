with source as (
    select * from {{ source('raw', 'episode_enclosures') }}
),

renamed as (
    select
        tenant_id,
        episode_id,
        enclosure_key,
        first_seen_at
    from source
)

select * from renamed
