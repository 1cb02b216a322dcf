-- Responses and listening are each known from their first row to their last. Beyond these a household without a
-- conversion, or without an exposure, is only one that nobody could have seen.
with campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

attribution_events as (
    select * from {{ ref('stg_raw__attribution_events') }}
),

downloads as (
    select * from {{ ref('fct_downloads') }}
),

responses as (
    select
        attribution_events.tenant_id,
        min(attribution_events.occurred_at) as first_at,
        max(attribution_events.occurred_at) as last_at
    from attribution_events
    group by attribution_events.tenant_id
),

listening as (
    select
        downloads.tenant_id,
        min(downloads.occurred_at) as first_at,
        max(downloads.occurred_at) as last_at
    from downloads
    group by downloads.tenant_id
),

observed as (
    select
        campaigns.tenant_id,
        campaigns.campaign_id,
        campaigns.sponsor_id,
        campaigns.conversion_actions,
        campaigns.flight_starts_at,
        campaigns.flight_ends_at,
        make_interval(secs => campaigns.lookback_days * 86400) as lookback,
        greatest(campaigns.flight_starts_at, responses.first_at, listening.first_at) as observed_from,
        least(
            campaigns.flight_ends_at + make_interval(secs => campaigns.lookback_days * 86400),
            responses.last_at + interval '1 microsecond'
        ) as observed_until,
        listening.last_at + interval '1 microsecond' as listening_until
    from campaigns
    inner join responses on campaigns.tenant_id = responses.tenant_id
    inner join listening on campaigns.tenant_id = listening.tenant_id
)

select * from observed
where observed_from < observed_until
