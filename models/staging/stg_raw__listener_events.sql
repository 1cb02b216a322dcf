with source as (
    select * from {{ source('raw', 'listener_events') }}
),

renamed as (
    select
        tenant_id,
        event_id,
        occurred_at,
        event_type,
        source,
        episode_id,
        episode_guid,
        url,
        enclosure_key,
        ad_unit_id,
        play_id,
        quartile,
        upper(method) as method,
        status,
        bytes_sent,
        object_bytes,
        byte_range,
        household_key,
        listener_key,
        key_id,
        network,
        user_agent,
        referrer,
        country_code,
        region_code,
        properties,
        properties ->> 'agentType' as reported_agent_type,
        properties ->> 'agentName' as reported_agent_name,
        properties ->> 'botType' as reported_bot_type,
        properties ->> 'deviceType' as reported_device_type,
        properties ->> 'no_address' as no_address,
        load_id
    from source
)

select * from renamed
