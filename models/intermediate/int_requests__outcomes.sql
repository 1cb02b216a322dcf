{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='7 days',
    indexes=[{'columns': ['occurred_at']}],
) }}

with events as (
    select * from {{ ref('int_listener_events__identified') }}
),

requests as (
    select
        events.*,
        (events.occurred_at at time zone 'UTC')::date as day
    from events
    where {{ in_window('events.occurred_at') }} and events.event_type in ('request', 'download')
),

-- The first rule that hits. Prefix services and download events say nothing of method and status: that is fine.
checked as (
    select
        requests.*,
        case
            when requests.episode_id is null and not coalesce({{ is_media('requests.requested') }}, false)
                then 'not_media'
            when requests.method <> 'GET' then 'not_get'
            when requests.status not in (200, 206) then 'bad_status'
            when requests.agent_category = 'none' then 'no_user_agent'
            when requests.agent_category = 'bot' then 'bot'
            when not requests.agent_counts then 'not_a_player'
        end as discarded_as
    from requests
),

-- Of what is left, the first of a listener, episode and UTC day counts. Without a listener nothing is a duplicate.
ranked as (
    select
        checked.*,
        row_number() over (
            partition by
                checked.tenant_id, checked.listener_key, checked.episode_key, checked.day, checked.discarded_as
            order by checked.occurred_at, checked.event_id
        ) as nth
    from checked
),

outcomes as (
    select
        ranked.tenant_id,
        ranked.event_id,
        ranked.occurred_at,
        ranked.event_type,
        ranked.source,
        coalesce(
            ranked.discarded_as,
            case when ranked.nth > 1 and ranked.listener_key is not null then 'duplicate' end,
            'counted'
        ) as outcome,
        ranked.episode_key,
        ranked.episode_id,
        ranked.podcast_id,
        ranked.household_key,
        ranked.listener_key,
        ranked.agent_name,
        ranked.agent_category,
        ranked.device_category,
        ranked.country_code,
        ranked.region_code,
        ranked.bytes_sent
    from ranked
)

select * from outcomes
