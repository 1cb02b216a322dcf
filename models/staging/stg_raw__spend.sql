with source as (
    select * from {{ source('raw', 'spend') }}
),

renamed as (
    select
        tenant_id,
        campaign_id,
        nullif(podcast_id, '') as podcast_id,
        spend_date,
        amount,
        currency,
        properties,
        load_id
    from source
)

select * from renamed
