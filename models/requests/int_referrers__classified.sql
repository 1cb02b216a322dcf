-- Only hosts that were never seen before are classified: the patterns run on distinct hosts, not on rows.
-- Building the whole starts over, as in int_user_agents__classified.
{{ config(
    materialized='incremental',
    incremental_strategy='append',
    full_refresh=false,
    on_schema_change='sync_all_columns',
    pre_hook="{{ empty_when_whole() }}",
    post_hook=["analyze {{ this }}", "{{ note_build() }}"],
) }}

with events as (
    select * from {{ ref('stg_raw__listener_events') }}
),

patterns as (
    select * from {{ ref('referrer_patterns') }}
),

referrers as materialized (
    select distinct events.referrer
    from events
    where {{ in_slices('events.occurred_at') }} and events.referrer not in ('', '-')
),

hosts as materialized (
    select distinct named.referrer_host
    from (select {{ referrer_host('referrers.referrer') }} as referrer_host from referrers) as named
    where
        named.referrer_host is not null
        {% if is_incremental() and not builds_whole() %}
            and not exists (
                select 1
                from {{ this }} as known
                where known.referrer_host = named.referrer_host
            )
        {% endif %}
),

-- Pattern by pattern, each over all hosts, as in int_user_agents__classified.
matches as (
    select distinct on (matched.referrer_host)
        matched.referrer_host,
        patterns.name,
        patterns.category
    from patterns
    cross join
        lateral (
            select hosts.referrer_host
            from hosts
            where hosts.referrer_host ~ patterns.pattern
            offset 0  -- noqa: AM09
        ) as matched
    order by matched.referrer_host, patterns.match_order
),

classified as (
    select
        hosts.referrer_host,
        matches.name,
        matches.category
    from hosts
    left join matches on hosts.referrer_host = matches.referrer_host
)

select * from classified
