{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'source', 'episode_key', 'day', 'rule'], 'unique': true}],
) }}

with compared as (
    select * from {{ ref('int_downloads__compared') }}
),

outcomes as (
    select * from {{ ref('int_requests__outcomes') }}
),

-- The requests that ours is counted from; of the service's own events those that it counts.
requests as (
    select
        compared.tenant_id,
        compared.source,
        compared.episode_key,
        compared.day,
        coalesce(outcomes.listener_key, uuid_send(outcomes.event_id)) as listener,
        outcomes.outcome,
        outcomes.calendar_day,
        outcomes.rolling_first,
        outcomes.rolling_last,
        outcomes.threshold_basis
    from compared
    inner join outcomes
        on
            compared.tenant_id = outcomes.tenant_id
            and compared.episode_key = outcomes.episode_key
            and compared.day = (outcomes.occurred_at at time zone 'UTC')::date
    where
        {{ in_slices('compared.day', column_type='date') }}
        and {{ in_slices('outcomes.occurred_at') }}
        and compared.is_flagged
        and case
            when compared.compared_with = 'same_events'
                then
                    outcomes.event_type = 'download'
                    and outcomes.source = compared.source
                    and outcomes.agent_category is distinct from 'bot'
            else outcomes.event_type <> 'download' or outcomes.source <> compared.source
        end
),

by_listener as (
    select
        requests.tenant_id,
        requests.source,
        requests.episode_key,
        requests.day,
        requests.listener,
        requests.outcome,
        count(*) as requests,
        count(*) filter (where requests.calendar_day = 'counted') as calendar_day,
        count(*) filter (where requests.rolling_first = 'counted') as rolling_first,
        count(*) filter (where requests.rolling_last = 'counted') as rolling_last,
        count(*) filter (
            where requests.outcome = 'counted' and requests.threshold_basis = 'unknown'
        ) as threshold_unknown,
        bool_or(requests.outcome = 'counted') over (
            partition by
                requests.tenant_id, requests.source, requests.episode_key, requests.day, requests.listener
        ) as is_counted
    from requests
    group by
        requests.tenant_id,
        requests.source,
        requests.episode_key,
        requests.day,
        requests.listener,
        requests.outcome
),

-- Without the rule that discarded them, listeners who were not counted would be; every duplicate would.
discarded as (
    select
        by_listener.tenant_id,
        by_listener.source,
        by_listener.episode_key,
        by_listener.day,
        by_listener.outcome as rule,
        case
            when by_listener.outcome = 'duplicate' then sum(by_listener.requests)
            else count(*) filter (where not by_listener.is_counted)
        end as effect
    from by_listener
    where by_listener.outcome <> 'counted'
    group by
        by_listener.tenant_id, by_listener.source, by_listener.episode_key, by_listener.day, by_listener.outcome
),

-- Another window, or no downloads whose threshold is not known.
recounted as (
    select
        by_listener.tenant_id,
        by_listener.source,
        by_listener.episode_key,
        by_listener.day,
        coalesce(sum(by_listener.requests) filter (where by_listener.outcome = 'counted'), 0) as ours,
        sum(by_listener.calendar_day) as calendar_day,
        sum(by_listener.rolling_first) as rolling_first,
        sum(by_listener.rolling_last) as rolling_last,
        sum(by_listener.threshold_unknown) as threshold_unknown
    from by_listener
    group by by_listener.tenant_id, by_listener.source, by_listener.episode_key, by_listener.day
),

effects as (
    select
        discarded.tenant_id,
        discarded.source,
        discarded.episode_key,
        discarded.day,
        discarded.rule,
        discarded.effect
    from discarded

    union all

    select
        recounted.tenant_id,
        recounted.source,
        recounted.episode_key,
        recounted.day,
        rules.rule,
        rules.effect
    from recounted
    cross join lateral (
        values
        ('threshold_unknown', -recounted.threshold_unknown),
        ('window:calendar_day', recounted.calendar_day - recounted.ours),
        ('window:rolling_first', recounted.rolling_first - recounted.ours),
        ('window:rolling_last', recounted.rolling_last - recounted.ours)
    ) as rules (rule, effect)
),

rule_effects as (
    select
        effects.tenant_id,
        effects.source,
        effects.episode_key,
        effects.day,
        effects.rule,
        effects.effect::bigint as effect
    from effects
    where effects.effect <> 0
)

select * from rule_effects
