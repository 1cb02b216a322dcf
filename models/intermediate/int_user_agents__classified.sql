-- Only agents that were never seen before are classified: the patterns run on distinct agents, not on rows.
-- Building the whole starts over (the pre-hook empties the table), so that changed patterns reach every agent. dbt's
-- own full refresh would drop the table, and with it the views that stand on it.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    full_refresh=false,
    on_schema_change='sync_all_columns',
    pre_hook="{{ lock_and_empty_when_whole() }}",
    post_hook="{{ note_build() }}",
) }}

with events as (
    select * from {{ ref('stg_raw__listener_events') }}
),

agent_patterns as (
    select * from {{ ref('user_agent_patterns') }}
),

device_patterns as (
    select * from {{ ref('device_patterns') }}
),

agents as materialized (
    select distinct events.user_agent
    from events
    where
        {{ in_window('events.occurred_at') }}
        and events.user_agent not in ('', '-')
        {% if is_incremental() %}
            and not exists (
                select 1
                from {{ this }} as classified
                where classified.user_agent = events.user_agent
            )
        {% endif %}
),

-- Pattern by pattern, each over all agents: PostgreSQL keeps only a few compiled patterns, so the other way
-- round it would compile every pattern anew for every agent. `offset 0` keeps the order of the loops.
agent_matches as (
    select distinct on (matched.user_agent)
        matched.user_agent,
        agent_patterns.category,
        agent_patterns.name,
        agent_patterns.counts
    from agent_patterns
    cross join
        lateral (
            select agents.user_agent
            from agents
            where agents.user_agent ~ agent_patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    order by matched.user_agent, agent_patterns.match_order
),

device_matches as (
    select distinct on (matched.user_agent)
        matched.user_agent,
        device_patterns.device_name,
        device_patterns.device_category
    from device_patterns
    cross join
        lateral (
            select agents.user_agent
            from agents
            where agents.user_agent ~ device_patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    order by matched.user_agent, device_patterns.match_order
),

classified as (
    select
        agents.user_agent,
        coalesce(agent_matches.category, 'unknown') as category,
        agent_matches.name as agent_name,
        case when not agent_matches.counts then case agent_matches.category when 'bot' then 'bot' else 'not_a_player' end end
            as discard_as,
        device_matches.device_name,
        device_matches.device_category
    from agents
    left join agent_matches on agents.user_agent = agent_matches.user_agent
    left join device_matches on agents.user_agent = device_matches.user_agent
)

select * from classified
