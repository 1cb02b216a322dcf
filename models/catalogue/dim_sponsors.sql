with sponsors as (
    select
        tenant_id,
        sponsor_id,
        name,
        domain
    from {{ ref('stg_raw__sponsors') }}
)

select * from sponsors
