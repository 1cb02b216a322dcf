with events as (
    select * from {{ ref('stg_raw__listener_events') }}
),

episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

guids as (
    select * from {{ ref('int_episodes__guids') }}
),

enclosures as (
    select * from {{ ref('int_episodes__enclosures') }}
),

agent_lists as (
    select * from {{ ref('stg_ingest__agent_lists') }}
),

agents as (
    select * from {{ ref('int_user_agents__classified') }}
),

referrers as (
    select * from {{ ref('int_referrers__classified') }}
),

-- A service that keeps the user agent to itself may still say what it was (OP3 does of its downloads).
told as (
    select
        events.*,
        case
            when coalesce(events.user_agent, '') not in ('', '-') then 'user_agent'
            when events.reported_bot_type <> '' then 'bot'
            when events.reported_agent_type in ('app', 'bot', 'browser', 'library', 'unknown')
                then events.reported_agent_type
            when events.reported_agent_type like 'bot%' then 'bot'
            else 'none'
        end as agent_by
    from events
),

-- The episode that the event names, else the one its guid names, else the one whose enclosure was requested.
identified as (
    select
        told.tenant_id,
        told.event_id,
        told.occurred_at,
        told.event_type,
        told.source,
        told.ad_unit_id,
        told.method,
        told.status,
        told.bytes_sent,
        told.object_bytes,
        told.byte_range,
        told.network,
        agent_lists.agent_list,
        referrers.name as referrer_name,
        told.play_id,
        told.quartile,
        told.household_key,
        told.listener_key,
        told.no_address,
        told.country_code,
        told.region_code,
        case told.agent_by when 'user_agent' then agents.agent_name else told.reported_agent_name end as agent_name,
        case told.agent_by when 'user_agent' then agents.device_name end as device_name,
        case told.agent_by
            when 'user_agent' then agents.device_category
            else
                case told.reported_device_type
                    when 'mobile' then 'phone' when 'auto' then 'car' else told.reported_device_type
                end
        end as device_category,
        coalesce(told.episode_id, guids.episode_id, enclosures.episode_id) as episode_id,
        case
            when told.episode_id is not null then episodes.podcast_id
            when guids.episode_id is not null then guids.podcast_id
            else enclosures.podcast_id
        end as podcast_id,
        coalesce(
            told.episode_id,
            guids.episode_id,
            enclosures.episode_id,
            'url:' || {{ shortened('coalesce(told.enclosure_key, told.url)') }},
            'guid:' || {{ shortened('told.episode_guid') }}
        ) as episode_key,
        coalesce(told.enclosure_key, split_part(told.url, '?', 1)) as requested,
        case told.agent_by when 'user_agent' then coalesce(agents.category, 'unknown') else told.agent_by end
            as agent_category,
        case
            when told.agent_by = 'user_agent' then agents.discard_as
            when told.agent_by = 'none' then 'no_user_agent'
            when told.agent_by = 'bot' then 'bot'
            when told.agent_by = 'library' then 'not_a_player'
        end as agent_discarded_as
    from told
    left join episodes
        on told.tenant_id = episodes.tenant_id and told.episode_id = episodes.episode_id
    left join guids
        on told.tenant_id = guids.tenant_id and told.episode_guid = guids.episode_guid
    left join enclosures
        on told.tenant_id = enclosures.tenant_id and told.enclosure_key = enclosures.enclosure_key
    left join agent_lists
        on told.occurred_at >= agent_lists.starts_at and told.occurred_at < agent_lists.ends_at
    left join agents
        on agent_lists.agent_list = agents.agent_list and told.user_agent = agents.user_agent
    left join referrers
        on {{ referrer_host('told.referrer') }} = referrers.referrer_host
)

select * from identified
