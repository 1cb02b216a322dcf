with source as (
    select * from {{ source('raw', 'listener_metrics') }}
),

renamed as (
    select
        tenant_id,
        episode_id,
        metric_date,
        metric_name,
        value as metric_value,
        source,
        properties,
        load_id
    from source
)

select * from renamed
