with source as (
    select * from {{ source('ingest', 'agent_patterns') }}
),

renamed as (
    select
        agent_list,
        kind,
        array_position(array['bots', 'apps', 'libraries', 'browsers'], kind::text) as kind_order,
        match_order,
        category,
        name,
        pattern,
        discard_as
    from source
)

select * from renamed
