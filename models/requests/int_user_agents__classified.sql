-- Only agents that are new to the list in effect are classified: the patterns run on distinct agents, not on rows.
-- Building the whole starts over (the pre-hook empties the table), so that changed patterns reach every agent. dbt's
-- own full refresh would drop the table, and with it the views that stand on it. Rows of a list that is no more go, and
-- statistics are taken: without them a first refresh would take each event to each agent.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    full_refresh=false,
    on_schema_change='sync_all_columns',
    pre_hook="{{ empty_when_whole() }}",
    post_hook=[
        "delete from {{ this }} where agent_list not in (select agent_list from {{ ref('stg_ingest__agent_lists') }})",
        "analyze {{ this }}",
        "{{ note_build() }}",
    ],
) }}

with events as (
    select * from {{ ref('stg_raw__listener_events') }}
),

lists as (
    select * from {{ ref('stg_ingest__agent_lists') }}
),

list_patterns as (
    select * from {{ ref('stg_ingest__agent_patterns') }}
),

agent_patterns as (
    select * from {{ ref('user_agent_patterns') }}
),

device_patterns as (
    select * from {{ ref('device_patterns') }}
),

agents as materialized (
    select distinct
        lists.agent_list,
        events.user_agent
    from events
    inner join lists on events.occurred_at >= lists.starts_at and events.occurred_at < lists.ends_at
    where
        {{ in_slices('events.occurred_at') }}
        and events.user_agent not in ('', '-')
        {% if is_incremental() and not builds_whole() %}
            and not exists (
                select 1
                from {{ this }} as known
                where known.agent_list = lists.agent_list and known.user_agent = events.user_agent
            )
        {% endif %}
),

distinct_agents as materialized (
    select distinct agents.user_agent from agents
),

-- Pattern by pattern, each over all agents: PostgreSQL keeps only a few compiled patterns, so the other way
-- round it would compile every pattern anew for every agent. `offset 0` keeps the order of the loops.
own_matches as (
    select distinct on (matched.user_agent)
        matched.user_agent,
        agent_patterns.category,
        agent_patterns.name,
        agent_patterns.discard_as,
        coalesce(agent_patterns.discard_as in ('apple_watch', 'forged_user_agent'), false) as comes_first
    from agent_patterns
    cross join
        lateral (
            select distinct_agents.user_agent
            from distinct_agents
            where distinct_agents.user_agent ~ agent_patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    order by matched.user_agent, agent_patterns.match_order
),

own_devices as (
    select distinct on (matched.user_agent)
        matched.user_agent,
        device_patterns.device_name,
        device_patterns.device_category
    from device_patterns
    cross join
        lateral (
            select distinct_agents.user_agent
            from distinct_agents
            where distinct_agents.user_agent ~ device_patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    order by matched.user_agent, device_patterns.match_order
),

public_matches as (
    select distinct on (matched.agent_list, matched.user_agent)
        matched.agent_list,
        matched.user_agent,
        list_patterns.category,
        list_patterns.name,
        list_patterns.discard_as
    from list_patterns
    cross join
        lateral (
            select
                agents.agent_list,
                agents.user_agent
            from agents
            where agents.agent_list = list_patterns.agent_list and agents.user_agent ~ list_patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    where list_patterns.kind in ('bots', 'apps', 'libraries', 'browsers')
    order by matched.agent_list, matched.user_agent, list_patterns.kind_order, list_patterns.match_order
),

public_devices as (
    select distinct on (matched.agent_list, matched.user_agent)
        matched.agent_list,
        matched.user_agent,
        list_patterns.name,
        list_patterns.category
    from list_patterns
    cross join
        lateral (
            select
                agents.agent_list,
                agents.user_agent
            from agents
            where agents.agent_list = list_patterns.agent_list and agents.user_agent ~ list_patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    where list_patterns.kind = 'devices'
    order by matched.agent_list, matched.user_agent, list_patterns.match_order
),

-- The public list decides, then our own seeds; but a watch and a forged agent are what the seeds say. A library of
-- the list that is not said to be a bot may still be no player: the seeds know.
matches as (
    select
        agents.agent_list,
        agents.user_agent,
        own_matches.category as own_category,
        own_matches.name as own_name,
        own_matches.discard_as as own_discard_as,
        public_matches.category as public_category,
        public_matches.name as public_name,
        case
            when public_matches.category = 'library' and own_matches.category = 'library'
                then coalesce(public_matches.discard_as, own_matches.discard_as)
            else public_matches.discard_as
        end as public_discard_as,
        public_matches.user_agent is not null and not coalesce(own_matches.comes_first, false) as public_decides
    from agents
    left join own_matches on agents.user_agent = own_matches.user_agent
    left join public_matches
        on agents.agent_list = public_matches.agent_list and agents.user_agent = public_matches.user_agent
),

classified as (
    select
        matches.agent_list,
        matches.user_agent,
        case when matches.public_decides then matches.public_category else coalesce(matches.own_category, 'unknown') end
            as category,
        case when matches.public_decides then matches.public_name else matches.own_name end as agent_name,
        case when matches.public_decides then matches.public_discard_as else matches.own_discard_as end as discard_as,
        coalesce(public_devices.name, own_devices.device_name) as device_name,
        case when public_devices.name is not null then public_devices.category else own_devices.device_category end
            as device_category
    from matches
    left join public_devices
        on matches.agent_list = public_devices.agent_list and matches.user_agent = public_devices.user_agent
    left join own_devices on matches.user_agent = own_devices.user_agent
)

select * from classified
