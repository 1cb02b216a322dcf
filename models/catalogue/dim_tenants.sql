with tenants as (
    select
        tenant_id,
        name,
        created_at
    from {{ ref('stg_tenancy__tenants') }}
)

select * from tenants
