with source as (
    select * from {{ source('raw', 'sponsors') }}
),

renamed as (
    select
        tenant_id,
        sponsor_id,
        name,
        domain,
        properties,
        load_id
    from source
)

select * from renamed
