-- Exposed time and unexposed time are told apart to the second, so a household is compared with others, and with
-- itself before the ad reached it; no time is counted for a group that it could not have converted in.
with campaigns as (
    select * from {{ ref('int_campaigns__observed') }}
),

-- Read four times: not materialized, so that each reading takes what it needs.
ad_impressions as not materialized (
    select * from {{ ref('fct_ad_impressions') }}
),

downloads as not materialized (
    select * from {{ ref('fct_downloads') }}
),

conversions as (
    select * from {{ ref('fct_conversions') }}
),

holdouts as (
    select * from {{ ref('attribution_holdouts') }}
),

-- From a lookback before: who was reached then is not unexposed at the start.
exposures as (
    select
        campaigns.tenant_id,
        campaigns.campaign_id,
        ad_impressions.household_key,
        ad_impressions.podcast_id,
        ad_impressions.in_flight,
        ad_impressions.occurred_at,
        campaigns.lookback
    from ad_impressions
    inner join campaigns
        on ad_impressions.tenant_id = campaigns.tenant_id and ad_impressions.campaign_id = campaigns.campaign_id
    where
        ad_impressions.household_key is not null
        and ad_impressions.occurred_at >= campaigns.observed_from - campaigns.lookback
        and ad_impressions.occurred_at < campaigns.observed_until
),

shows as (
    select distinct
        exposures.tenant_id,
        exposures.campaign_id,
        exposures.podcast_id
    from exposures
    where exposures.in_flight and exposures.podcast_id is not null
),

-- Who listens to the campaign's shows in its flight, reached or not.
audience as (
    select
        shows.tenant_id,
        shows.campaign_id,
        downloads.household_key
    from downloads
    inner join shows on downloads.tenant_id = shows.tenant_id and downloads.podcast_id = shows.podcast_id
    inner join campaigns on shows.tenant_id = campaigns.tenant_id and shows.campaign_id = campaigns.campaign_id
    where
        downloads.household_key is not null
        and downloads.occurred_at >= campaigns.flight_starts_at
        and downloads.occurred_at < campaigns.flight_ends_at

    union

    select
        exposures.tenant_id,
        exposures.campaign_id,
        exposures.household_key
    from exposures
    where exposures.in_flight
),

placebos as (
    select
        holdouts.tenant_id,
        holdouts.campaign_id,
        ad_impressions.household_key,
        ad_impressions.occurred_at
    from holdouts
    inner join ad_impressions
        on holdouts.tenant_id = ad_impressions.tenant_id and holdouts.value = ad_impressions.ad_unit_id
    where holdouts.kind = 'ad_unit' and ad_impressions.household_key is not null

    union all

    select
        holdouts.tenant_id,
        holdouts.campaign_id,
        downloads.household_key,
        downloads.occurred_at
    from holdouts
    inner join downloads
        on holdouts.tenant_id = downloads.tenant_id and holdouts.value = downloads.podcast_id
    where holdouts.kind = 'podcast' and downloads.household_key is not null
),

-- From another campaign of the same sponsor on, nobody can tell which of the two it was.
other_exposures as (
    select
        campaigns.tenant_id,
        campaigns.campaign_id,
        ad_impressions.household_key,
        ad_impressions.occurred_at
    from campaigns
    inner join campaigns as others
        on
            campaigns.tenant_id = others.tenant_id
            and campaigns.sponsor_id = others.sponsor_id
            and campaigns.campaign_id <> others.campaign_id
    inner join ad_impressions
        on others.tenant_id = ad_impressions.tenant_id and others.campaign_id = ad_impressions.campaign_id
    where
        ad_impressions.household_key is not null
        and ad_impressions.in_flight
        and ad_impressions.occurred_at >= campaigns.observed_from
        and ad_impressions.occurred_at < campaigns.observed_until
),

-- All that is known of a household: stacked and grouped, which costs the same however it is distributed.
facts as (
    select
        exposures.tenant_id,
        exposures.campaign_id,
        exposures.household_key,
        exposures.in_flight as listens,
        exposures.occurred_at as exposed_at,
        null::timestamptz as other_at,
        case
            when exposures.in_flight
                then tstzrange(exposures.occurred_at, exposures.occurred_at + exposures.lookback)
        end as exposed_span,
        null::tstzrange as placebo_span
    from exposures

    union all

    select
        audience.tenant_id,
        audience.campaign_id,
        audience.household_key,
        true as listens,
        null as exposed_at,
        null as other_at,
        null as exposed_span,
        null as placebo_span
    from audience

    union all

    select
        other_exposures.tenant_id,
        other_exposures.campaign_id,
        other_exposures.household_key,
        false as listens,
        null as exposed_at,
        other_exposures.occurred_at as other_at,
        null as exposed_span,
        null as placebo_span
    from other_exposures

    union all

    select
        placebos.tenant_id,
        placebos.campaign_id,
        placebos.household_key,
        false as listens,
        null as exposed_at,
        null as other_at,
        null as exposed_span,
        tstzrange(placebos.occurred_at, placebos.occurred_at + campaigns.lookback) as placebo_span
    from placebos
    inner join campaigns
        on placebos.tenant_id = campaigns.tenant_id and placebos.campaign_id = campaigns.campaign_id
    where
        placebos.occurred_at >= campaigns.flight_starts_at
        and placebos.occurred_at < campaigns.flight_ends_at
),

households as (
    select
        facts.tenant_id,
        facts.campaign_id,
        facts.household_key,
        bool_or(facts.listens) as listens,
        min(facts.exposed_at) as exposed_at,
        min(facts.other_at) as other_at,
        range_agg(facts.exposed_span) as exposed_spans,
        range_agg(facts.placebo_span) as placebo_spans
    from facts
    group by facts.tenant_id, facts.campaign_id, facts.household_key
),

watched as (
    select
        households.*,
        campaigns.sponsor_id,
        campaigns.conversion_actions,
        tstzmultirange(
            tstzrange(campaigns.observed_from, least(campaigns.observed_until, households.other_at))
        ) as watched_span,
        tstzmultirange(
            tstzrange(
                campaigns.observed_from,
                greatest(
                    campaigns.observed_from,
                    least(
                        campaigns.observed_until,
                        campaigns.listening_until,
                        households.other_at,
                        households.exposed_at
                    )
                )
            )
        ) as unexposed_span
    from households
    inner join campaigns
        on households.tenant_id = campaigns.tenant_id and households.campaign_id = campaigns.campaign_id
),

-- Exposed, or held out, is a household for as long as one of its exposures, or placebos, could bring a conversion.
arms as (
    select
        watched.*,
        'exposed' as arm,
        watched.exposed_spans * watched.watched_span as spans
    from watched

    union all

    select
        watched.*,
        'unexposed' as arm,
        watched.unexposed_span as spans
    from watched
    where watched.listens

    union all

    select
        watched.*,
        'holdout' as arm,
        watched.placebo_spans * watched.unexposed_span as spans
    from watched
),

converted as (
    select
        arms.tenant_id,
        arms.campaign_id,
        arms.arm,
        arms.household_key,
        arms.spans,
        arms.other_at,
        count(conversions.conversion_id) as conversions
    from arms
    left join conversions
        on
            arms.tenant_id = conversions.tenant_id
            and arms.sponsor_id = conversions.sponsor_id
            and arms.household_key = conversions.household_key
            and conversions.action = any(arms.conversion_actions)
            and arms.spans @> conversions.occurred_at
    where not isempty(arms.spans)
    group by
        arms.tenant_id,
        arms.campaign_id,
        arms.arm,
        arms.household_key,
        arms.spans,
        arms.other_at
),

observed as (
    select
        converted.tenant_id,
        converted.campaign_id,
        converted.arm,
        converted.household_key,
        (
            select sum(extract(epoch from upper(span) - lower(span)))
            from unnest(converted.spans) as span
        )::double precision / 86400 as days,
        converted.conversions,
        converted.other_at is not null as is_cut
    from converted
)

select * from observed
