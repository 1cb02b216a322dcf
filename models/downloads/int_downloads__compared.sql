{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'source', 'episode_key', 'day'], 'unique': true}],
) }}

with outcomes as (
    select * from {{ ref('int_requests__outcomes') }}
),

metrics as (
    select * from {{ ref('stg_raw__listener_metrics') }}
),

episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

guids as (
    select * from {{ ref('int_episodes__guids') }}
),

-- What we counted, and what services count that send their downloads one by one: each row that they do not label a bot.
counts as (
    select
        outcomes.tenant_id,
        (outcomes.occurred_at at time zone 'UTC')::date as day,
        outcomes.episode_key,
        coalesce(outcomes.podcast_id, '') as show,
        outcomes.source,
        outcomes.event_type = 'download' as is_theirs,
        count(*) filter (where outcomes.outcome = 'counted') as counted,
        count(*) filter (where outcomes.outcome <> 'other_source') as considered,
        count(*) filter (where outcomes.agent_category is distinct from 'bot') as reported
    from outcomes
    where
        {{ in_slices('outcomes.occurred_at') }}
        and outcomes.episode_key is not null
        and (outcomes.outcome = 'counted' or outcomes.event_type = 'download')
    group by
        outcomes.tenant_id,
        (outcomes.occurred_at at time zone 'UTC')::date,
        outcomes.episode_key,
        coalesce(outcomes.podcast_id, ''),
        outcomes.source,
        outcomes.event_type = 'download'
),

episode_days as (
    select
        counts.tenant_id,
        counts.day,
        counts.episode_key,
        counts.show,
        sum(counts.counted) as counted
    from counts
    group by counts.tenant_id, counts.day, counts.episode_key, counts.show
),

show_days as (
    select
        counts.tenant_id,
        counts.day,
        counts.show,
        sum(counts.counted) as counted
    from counts
    group by counts.tenant_id, counts.day, counts.show
),

service_days as (
    select
        counts.tenant_id,
        counts.day,
        counts.show,
        counts.source,
        sum(counts.counted) as counted,
        sum(counts.considered) as considered
    from counts
    where counts.is_theirs
    group by counts.tenant_id, counts.day, counts.show, counts.source
    having sum(counts.reported) > 0
),

-- A host names an episode by our id, or by its guid. Where it does both, the id holds.
figures as (
    select distinct on (
        metrics.tenant_id, metrics.source, metrics.metric_date, coalesce(guids.episode_id, metrics.episode_id)
    )
        metrics.tenant_id,
        metrics.metric_date as day,
        coalesce(guids.episode_id, metrics.episode_id) as episode_key,
        coalesce(episodes.podcast_id, guids.podcast_id, '') as show,
        metrics.source,
        metrics.metric_value as theirs
    from metrics
    left join episodes
        on metrics.tenant_id = episodes.tenant_id and metrics.episode_id = episodes.episode_id
    left join guids
        on
            metrics.tenant_id = guids.tenant_id
            and metrics.episode_id = guids.episode_guid
            and episodes.episode_id is null
    where {{ in_slices('metrics.metric_date', column_type='date') }} and lower(metrics.metric_name) = 'downloads'
    order by
        metrics.tenant_id asc,
        metrics.source asc,
        metrics.metric_date asc,
        coalesce(guids.episode_id, metrics.episode_id) asc,
        episodes.episode_id asc nulls last,
        metrics.metric_name asc
),

-- What others say something of. A service that sends downloads of a show on a day has sent all of them: what is not
-- there it counts as 0. A host's export may be of some episodes only: what is not there it does not say.
named as (
    select
        figures.tenant_id,
        figures.day,
        figures.episode_key,
        figures.source
    from figures

    union distinct

    select
        service_days.tenant_id,
        service_days.day,
        episode_days.episode_key,
        service_days.source
    from service_days
    inner join episode_days
        on
            service_days.tenant_id = episode_days.tenant_id
            and service_days.day = episode_days.day
            and service_days.show = episode_days.show
),

-- Where a source sends both, its figure holds.
beside as (
    select
        named.tenant_id,
        named.day,
        named.episode_key,
        named.source,
        coalesce(figures.show, episode_days.show) as show,
        coalesce(figures.theirs, counts.reported, 0) as theirs,
        case when figures.tenant_id is null then 'events' else 'figure' end as reported_as,
        coalesce(episode_days.counted, 0) as counted,
        coalesce(counts.counted, 0) as counted_of_theirs
    from named
    left join figures
        on
            named.tenant_id = figures.tenant_id
            and named.day = figures.day
            and named.episode_key = figures.episode_key
            and named.source = figures.source
    left join episode_days
        on
            named.tenant_id = episode_days.tenant_id
            and named.day = episode_days.day
            and named.episode_key = episode_days.episode_key
    left join counts
        on
            named.tenant_id = counts.tenant_id
            and named.day = counts.day
            and named.episode_key = counts.episode_key
            and named.source = counts.source
            and counts.is_theirs
    where
        figures.tenant_id is not null
        or counts.reported > 0
        or (episode_days.counted > 0 and episode_days.show <> '')
),

-- Their own events are no witness against them: ours is what we counted of all others. Where we counted a show by
-- their events alone, it is what we counted of these.
compared as (
    select
        beside.*,
        service_days.considered > 0 and service_days.counted = show_days.counted as is_of_same_events
    from beside
    left join show_days
        on
            beside.tenant_id = show_days.tenant_id
            and beside.day = show_days.day
            and beside.show = show_days.show
    left join service_days
        on
            beside.tenant_id = service_days.tenant_id
            and beside.day = service_days.day
            and beside.show = service_days.show
            and beside.source = service_days.source
),

differences as (
    select
        compared.tenant_id,
        compared.source,
        compared.episode_key,
        compared.day,
        nullif(compared.show, '') as podcast_id,
        compared.reported_as,
        case when compared.is_of_same_events then 'same_events' else 'other_events' end as compared_with,
        compared.theirs,
        case
            when compared.is_of_same_events then compared.counted_of_theirs
            else compared.counted - compared.counted_of_theirs
        end::bigint as ours
    from compared
),

flagged as (
    select
        differences.*,
        abs(differences.ours - differences.theirs) >= 1
        and abs(differences.ours - differences.theirs)::numeric
        > {{ var('reconciliation_tolerance') }} * abs(differences.theirs)::numeric as is_flagged
    from differences
)

select * from flagged
