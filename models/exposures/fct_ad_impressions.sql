{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='7 days',
    keys=['household_key'],
    indexes=[
        {'columns': ['occurred_at']},
        {'columns': ['household_key', 'tenant_id', 'occurred_at']},
        {'columns': ['tenant_id', 'campaign_id', 'occurred_at']},
    ],
) }}

with downloads as (
    select * from {{ ref('fct_downloads') }}
),

outcomes as (
    select * from {{ ref('int_requests__outcomes') }}
),

events as (
    select * from {{ ref('int_listener_events__identified') }}
),

-- Read twice: not materialized, so that the planner knows how many there are of each kind.
ad_units as not materialized (
    select * from {{ ref('stg_raw__ad_units') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

-- The bytes that a listener was sent of an episode on a UTC day, where an ad has a place in it.
delivered as (
    select
        outcomes.tenant_id,
        outcomes.episode_key,
        coalesce(outcomes.listener_key, uuid_send(outcomes.event_id)) as requester,
        (outcomes.occurred_at at time zone 'UTC')::date as day,
        range_agg(outcomes.placed_bytes) as placed_bytes,
        bool_and(outcomes.placed_bytes is not null) as is_known,
        max(outcomes.bitrate_bps) as bitrate_bps
    from outcomes
    where
        {{ in_slices('outcomes.occurred_at') }}
        and outcomes.calendar_day is not null
        and (outcomes.tenant_id, outcomes.episode_id) in (
            select
                placed.tenant_id,
                placed.episode_id
            from ad_units as placed
            where placed.delivery = 'baked_in' and placed.starts_at_second + placed.duration_seconds is not null
        )
    group by
        outcomes.tenant_id,
        outcomes.episode_key,
        coalesce(outcomes.listener_key, uuid_send(outcomes.event_id)),
        (outcomes.occurred_at at time zone 'UTC')::date
),

-- Baked in: whoever downloads the episode downloads the ad, if its bytes were among those delivered. Where they are
-- not known, or the ad's place is not, the download stands for them.
baked_in as (
    select
        downloads.tenant_id,
        downloads.download_id as event_id,
        downloads.occurred_at,
        ad_units.campaign_id,
        ad_units.ad_unit_id,
        ad_units.insertion_order_id,
        downloads.podcast_id,
        downloads.episode_key,
        ad_units.position,
        ad_units.delivery,
        case
            when
                not coalesce(delivered.is_known, false)
                or delivered.bitrate_bps + ad_units.starts_at_second + ad_units.duration_seconds is null
                then 'download'
            when delivered.placed_bytes @> {{ bytes_of_ad('delivered.bitrate_bps') }} then 'bytes'
        end as evidence,
        downloads.household_key,
        downloads.listener_key
    from downloads
    inner join ad_units
        on downloads.tenant_id = ad_units.tenant_id and downloads.episode_id = ad_units.episode_id
    left join episodes
        on downloads.tenant_id = episodes.tenant_id and downloads.episode_id = episodes.episode_id
    left join delivered
        on
            downloads.tenant_id = delivered.tenant_id
            and downloads.episode_key = delivered.episode_key
            and coalesce(downloads.listener_key, uuid_send(downloads.download_id)) = delivered.requester
            and (downloads.occurred_at at time zone 'UTC')::date = delivered.day
    where {{ in_slices('downloads.occurred_at') }} and ad_units.delivery = 'baked_in'
),

-- Inserted dynamically: the ad server says so, the agent is one that counts, and all of the ad was sent.
inserted as (
    select
        events.tenant_id,
        events.event_id,
        events.occurred_at,
        ad_units.campaign_id,
        ad_units.ad_unit_id,
        ad_units.insertion_order_id,
        coalesce(events.podcast_id, episodes.podcast_id) as podcast_id,
        coalesce(events.episode_id, ad_units.episode_id, events.episode_key) as episode_key,
        ad_units.position,
        ad_units.delivery,
        case when events.bytes_sent >= events.object_bytes then 'bytes' else 'ad_server' end as evidence,
        events.household_key,
        events.listener_key
    from events
    inner join ad_units
        on events.tenant_id = ad_units.tenant_id and events.ad_unit_id = ad_units.ad_unit_id
    left join episodes
        on ad_units.tenant_id = episodes.tenant_id and ad_units.episode_id = episodes.episode_id
    where
        {{ in_slices('events.occurred_at') }}
        and events.event_type = 'ad_impression'
        and events.agent_discarded_as is null
        and ad_units.delivery = 'dai'
        and coalesce(events.bytes_sent >= events.object_bytes, true)
),

exposures as (
    select * from baked_in
    where evidence is not null
    union all
    select * from inserted
),

ad_impressions as (
    select
        exposures.tenant_id,
        md5(exposures.tenant_id || '|' || exposures.event_id::text || '|' || exposures.ad_unit_id)::uuid
            as impression_id,
        exposures.occurred_at,
        exposures.campaign_id,
        exposures.ad_unit_id,
        exposures.insertion_order_id,
        exposures.podcast_id,
        exposures.episode_key,
        exposures.position,
        exposures.delivery,
        exposures.evidence,
        exposures.household_key,
        exposures.listener_key,
        coalesce(
            exposures.occurred_at >= campaigns.flight_starts_at and exposures.occurred_at < campaigns.flight_ends_at,
            false
        ) as in_flight
    from exposures
    left join campaigns
        on exposures.tenant_id = campaigns.tenant_id and exposures.campaign_id = campaigns.campaign_id
)

select * from ad_impressions
