with source as (
    select * from {{ source('ingest', 'agent_lists') }}
),

versions as (
    select
        'earmark' as agent_list,
        timestamptz '-infinity' as starts_at
    union all
    select
        agent_list,
        effective_from::timestamp at time zone 'UTC' as starts_at
    from source
),

renamed as (
    select
        agent_list,
        starts_at,
        lead(starts_at, 1, timestamptz 'infinity') over (order by starts_at) as ends_at
    from versions
)

select * from renamed
