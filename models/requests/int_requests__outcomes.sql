-- The rule chain of the guidelines: filter, threshold, uniques. Each request ends in one outcome, by the first rule
-- that hits. Metrics are what stands on this model; its audit is fct_request_outcomes_daily.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='7 days',
    indexes=[{'columns': ['occurred_at']}],
    post_hook="{{ settle_windows() }}",
) }}

with events as (
    select * from {{ ref('int_listener_events__identified') }}
),

tenants as (
    select * from {{ ref('stg_tenancy__tenants') }}
),

safe_addresses as (
    select * from {{ ref('stg_tenancy__safe_addresses') }}
),

episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

-- A length that with the duration is no bitrate of audio or video is not known: a placeholder is no whole file.
believed as (
    select
        episodes.*,
        case
            when
                coalesce(
                    (episodes.enclosure_bytes - coalesce(episodes.id3_bytes, 0)) * 8
                    / nullif(episodes.duration_seconds, 0) between 8000 and 20000000,
                    true
                )
                then nullif(episodes.enclosure_bytes, 0)
        end as believed_bytes
    from episodes
),

-- Requests, with the settings of their tenant and what is known of the file.
requests as (
    select
        events.*,
        (events.occurred_at at time zone 'UTC')::date as day,
        tenants.download_window,
        tenants.counts_unknown_threshold,
        tenants.max_daily_downloads_per_address,
        tenants.discards_data_centers,
        tenants.discards_vpns,
        tenants.counted_sources,
        tenants.assumed_bitrate_bps,
        believed.bitrate_bps as declared_bitrate_bps,
        believed.duration_seconds,
        coalesce(believed.id3_bytes, 0) as id3_bytes,
        believed.believed_bytes as enclosure_bytes,
        coalesce(nullif(events.object_bytes, 0), believed.believed_bytes) as file_bytes
    from events
    inner join tenants
        on events.tenant_id = tenants.tenant_id
    left join believed
        on events.tenant_id = believed.tenant_id and events.episode_id = believed.episode_id
    where {{ in_slices('events.occurred_at') }} and events.event_type in ('request', 'download')
),

-- Filter. Prefix services and download events say nothing of method and status: that is fine.
filtered as (
    select
        requests.*,
        safe_addresses.household_key is not null as is_safe,
        case
            when requests.source <> all(string_to_array(requests.counted_sources, ',')) then 'other_source'
            when requests.episode_id is null and not coalesce({{ is_media('requests.requested') }}, false)
                then 'not_media'
            when requests.method <> 'GET' then 'not_get'
            when requests.status not in (200, 206) then 'bad_status'
            when requests.agent_discarded_as is not null then requests.agent_discarded_as
            when
                requests.byte_range ~* '^\s*bytes\s*=\s*0\s*-\s*[01]\s*$'
                or (requests.status = 206 and requests.bytes_sent <= 2)
                then 'two_byte_probe'
            when requests.no_address is not null then 'no_address'
            when
                requests.network = 'data_center' and requests.discards_data_centers
                and safe_addresses.household_key is null
                then 'data_center'
            when requests.network = 'vpn' and requests.discards_vpns and safe_addresses.household_key is null
                then 'vpn'
        end as filtered_as
    from requests
    left join safe_addresses
        on
            requests.tenant_id = safe_addresses.tenant_id
            and requests.household_key = safe_addresses.household_key
            and requests.day < safe_addresses.expires_on
),

-- Addresses with many requests a day, then those with more listeners and episodes than one address can have. Two
-- steps, for only few addresses come to the second. Materialized: where nobody knows how many requests there are, they
-- were joined in a loop, and found anew for each.
busy_addresses as materialized (
    select
        filtered.tenant_id,
        filtered.household_key,
        filtered.day
    from filtered
    where filtered.filtered_as is null and not filtered.is_safe and filtered.household_key is not null
    group by filtered.tenant_id, filtered.household_key, filtered.day
    having count(*) > min(filtered.max_daily_downloads_per_address)
),

implausible_addresses as (
    select
        filtered.tenant_id,
        filtered.household_key,
        filtered.day
    from filtered
    inner join busy_addresses
        on
            filtered.tenant_id = busy_addresses.tenant_id
            and filtered.household_key = busy_addresses.household_key
            and filtered.day = busy_addresses.day
    where filtered.filtered_as is null
    group by filtered.tenant_id, filtered.household_key, filtered.day
    having
        count(distinct filtered.listener_key::text || filtered.episode_key)
        > min(filtered.max_daily_downloads_per_address)
),

-- The bitrate: declared, else from size and duration of the feed, else of the file that was served, else assumed. What
-- no audio or video has is an error of the feed, and no bitrate. (`offset 0`, here and below: each step is computed
-- once. Without it PostgreSQL puts the expressions of one step into the next, where they stand many times.)
rated as (
    select
        filtered.*,
        case
            when filtered.declared_bitrate_bps is not null then 'declared'
            when {{ bitrate_bps('filtered.enclosure_bytes') }} between 8000 and 20000000 then 'feed'
            when {{ bitrate_bps('filtered.object_bytes') }} between 8000 and 20000000 then 'object'
            when filtered.assumed_bitrate_bps is not null then 'assumed'
        end as bitrate_basis
    from filtered
    offset 0  -- noqa: AM09
),

-- Threshold: the header and 60 seconds at that bitrate; the whole file where it is shorter, or no bitrate is known.
-- Where no bytes or no size are known the threshold is, and any byte counts, if the tenant says so.
measured as (
    select
        rated.*,
        case rated.bitrate_basis
            when 'declared' then rated.declared_bitrate_bps
            when 'feed' then {{ bitrate_bps('rated.enclosure_bytes') }}
            when 'object' then {{ bitrate_bps('rated.object_bytes') }}
            when 'assumed' then rated.assumed_bitrate_bps
        end as bitrate_bps,
        case
            when rated.bytes_sent is null then 'unknown'
            when rated.duration_seconds < {{ var('threshold_seconds') }}
                then case when rated.file_bytes is null then 'unknown' else 'whole_file' end
            when rated.bitrate_basis is not null then rated.bitrate_basis
            when rated.file_bytes is not null then 'whole_file'
            else 'unknown'
        end as threshold_basis,
        counting.placed_bytes(rated.byte_range, rated.status, rated.bytes_sent, rated.object_bytes) as placed_bytes
    from rated
    offset 0  -- noqa: AM09
),

thresholds as (
    select
        measured.*,
        case measured.threshold_basis
            when 'unknown' then case when measured.bytes_sent is not null then 1 end
            when 'whole_file' then measured.file_bytes
            else
                least(
                    measured.id3_bytes + ceil({{ var('threshold_seconds') }} * measured.bitrate_bps / 8.0)::bigint,
                    measured.file_bytes
                )
        end as needed_bytes,
        case
            when measured.placed_bytes is null then measured.bytes_sent
            when measured.byte_range like '%,%' then counting.bytes_in(measured.placed_bytes)
            else coalesce(upper(measured.placed_bytes) - lower(measured.placed_bytes), 0)
        end as delivered_bytes,
        case
            when measured.filtered_as is not null then measured.filtered_as
            when implausible_addresses.household_key is not null then 'implausible_volume'
            when measured.threshold_basis = 'unknown' and not measured.counts_unknown_threshold
                then 'threshold_unknown'
        end as discarded_as
    from measured
    left join implausible_addresses
        on
            measured.tenant_id = implausible_addresses.tenant_id
            and measured.household_key = implausible_addresses.household_key
            and measured.day = implausible_addresses.day
),

-- Uniques. The requests that are left and, where slices are refreshed, those of the day before it: their
-- standing is known, and windows of 24 hours go on from it.
candidates as (
    select
        thresholds.tenant_id,
        thresholds.event_id,
        thresholds.occurred_at,
        thresholds.listener_key,
        thresholds.episode_key,
        thresholds.bytes_sent,
        thresholds.placed_bytes,
        thresholds.needed_bytes,
        coalesce(thresholds.delivered_bytes >= thresholds.needed_bytes, true) as suffices,
        null::counting.standing as known_first,
        null::counting.standing as known_last,
        true as is_new
    from thresholds
    where thresholds.discarded_as is null

    {% if not builds_whole() %}
        union all

        select
            earlier.tenant_id,
            earlier.event_id,
            earlier.occurred_at,
            earlier.listener_key,
            earlier.episode_key,
            earlier.bytes_sent,
            earlier.placed_bytes,
            earlier.needed_bytes,
            null as suffices,
            {{ known_standing('earlier.rolling_first') }} as known_first,
            {{ known_standing('earlier.rolling_last') }} as known_last,
            false as is_new
        from {{ this }} as earlier
        where
            {{ in_slices('earlier.occurred_at', before_days=1) }}
            and not {{ in_slices('earlier.occurred_at') }}
            and earlier.calendar_day is not null
    {% endif %}
),

standings as (
    select
        candidates.*,
        {{ standing('calendar_day') }} as calendar_day_standing,
        {{ standing('rolling_first', 'known_first') }} as rolling_first_standing,
        {{ standing('rolling_last', 'known_last') }} as rolling_last_standing
    from candidates
),

outcomes as (
    select
        thresholds.tenant_id,
        thresholds.event_id,
        thresholds.occurred_at,
        thresholds.event_type,
        thresholds.source,
        coalesce(
            thresholds.discarded_as,
            case thresholds.download_window
                when 'calendar_day' then (standings.calendar_day_standing).outcome
                when 'rolling_first' then (standings.rolling_first_standing).outcome
                when 'rolling_last' then (standings.rolling_last_standing).outcome
            end
        ) as outcome,
        thresholds.download_window,
        (standings.calendar_day_standing).outcome as calendar_day,
        (standings.rolling_first_standing).outcome as rolling_first,
        (standings.rolling_first_standing).until as rolling_first_until,
        (standings.rolling_last_standing).outcome as rolling_last,
        (standings.rolling_last_standing).until as rolling_last_until,
        thresholds.threshold_basis,
        thresholds.bitrate_bps,
        thresholds.needed_bytes,
        thresholds.bytes_sent,
        thresholds.placed_bytes,
        thresholds.episode_key,
        thresholds.episode_id,
        thresholds.podcast_id,
        thresholds.household_key,
        thresholds.listener_key,
        thresholds.agent_list,
        thresholds.agent_name,
        thresholds.agent_category,
        thresholds.device_name,
        thresholds.device_category,
        thresholds.referrer_name,
        thresholds.country_code,
        thresholds.region_code
    from thresholds
    left join standings
        on
            thresholds.tenant_id = standings.tenant_id
            and thresholds.event_id = standings.event_id
            and thresholds.occurred_at = standings.occurred_at
            and standings.is_new
)

select * from outcomes
