with source as (
    select * from {{ source('tenancy', 'safe_addresses') }}
),

renamed as (
    select
        tenant_id,
        household_key,
        reason,
        expires_on
    from source
)

select * from renamed
