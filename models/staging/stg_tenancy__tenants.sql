with source as (
    select * from {{ source('tenancy', 'tenants') }}
),

renamed as (
    select
        tenant_id,
        name,
        created_at
    from source
)

select * from renamed
