-- A play may run over midnight. It stands on the UTC day of its first beacon and takes those of the next day too;
-- so a day depends on the day before and on the day after, and refreshes with them.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='7 days',
    keys=['household_key'],
    before_days=1,
    after_days=1,
    indexes=[
        {'columns': ['occurred_at']},
        {'columns': ['household_key', 'tenant_id', 'occurred_at']},
        {'columns': ['tenant_id', 'ad_unit_id', 'occurred_at']},
    ],
) }}

with events as (
    select * from {{ ref('int_listener_events__identified') }}
),

ad_units as (
    select * from {{ ref('stg_raw__ad_units') }}
),

episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

-- Without play_id a play is what a listener hears of an episode in a UTC day. Where the listener is not known
-- either, nothing says which beacons belong together: every start is a play, and later beacons are left out.
beacons as (
    select
        events.*,
        coalesce(events.quartile, 0) as reached,
        (events.occurred_at at time zone 'UTC')::date as day,
        case
            when events.play_id is not null then 'play'
            when events.listener_key is not null then 'listener'
            else 'event'
        end as play_key_type,
        case
            when events.play_id is not null then events.play_id
            when events.listener_key is not null
                then concat_ws('|', encode(events.listener_key, 'hex'), events.episode_key)
            else events.event_id::text
        end as play_key
    from events
    where
        {{ in_slices('events.occurred_at', before_days=1, after_days=1) }}
        and events.event_type = 'play'
        and events.ad_unit_id is not null
        and events.agent_discarded_as is null
        and (
            events.play_id is not null
            or events.listener_key is not null
            or coalesce(events.quartile, 0) = 0
        )
),

-- The first beacon of a play and day, with the furthest quartile of that day.
play_days as (
    select distinct on (
        beacons.tenant_id, beacons.ad_unit_id, beacons.play_key_type, beacons.play_key, beacons.day
    )
        beacons.*,
        max(beacons.reached) over (
            partition by
                beacons.tenant_id, beacons.ad_unit_id, beacons.play_key_type, beacons.play_key, beacons.day
        ) as furthest
    from beacons
    order by
        beacons.tenant_id,
        beacons.ad_unit_id,
        beacons.play_key_type,
        beacons.play_key,
        beacons.day,
        beacons.occurred_at,
        beacons.event_id
),

neighbours as (
    select
        play_days.*,
        lag(play_days.day) over (play) as previous_day,
        lead(play_days.day) over (play) as next_day,
        lead(play_days.furthest) over (play) as next_furthest
    from play_days
    window
        play as (
            partition by play_days.tenant_id, play_days.ad_unit_id, play_days.play_key_type, play_days.play_key
            order by play_days.day
        )
),

plays as (
    select
        neighbours.*,
        greatest(
            neighbours.furthest,
            case
                when neighbours.play_key_type = 'play' and neighbours.next_day = neighbours.day + 1
                    then neighbours.next_furthest
            end
        )::smallint as furthest_quartile
    from neighbours
    where neighbours.play_key_type <> 'play' or neighbours.previous_day is distinct from neighbours.day - 1
),

ad_plays as (
    select
        plays.tenant_id,
        plays.event_id as ad_play_id,
        plays.occurred_at,
        plays.play_id,
        plays.ad_unit_id,
        ad_units.campaign_id,
        coalesce(plays.podcast_id, episodes.podcast_id) as podcast_id,
        coalesce(plays.episode_id, ad_units.episode_id, plays.episode_key) as episode_key,
        plays.household_key,
        plays.listener_key,
        plays.furthest_quartile,
        plays.furthest_quartile = 100 as is_complete
    from plays
    left join ad_units
        on plays.tenant_id = ad_units.tenant_id and plays.ad_unit_id = ad_units.ad_unit_id
    left join episodes
        on ad_units.tenant_id = episodes.tenant_id and ad_units.episode_id = episodes.episode_id
)

select * from ad_plays
