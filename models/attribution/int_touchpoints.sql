with ad_impressions as (
    select * from {{ ref('fct_ad_impressions') }}
),

ad_plays as (
    select * from {{ ref('fct_ad_plays') }}
),

responses as (
    select * from {{ ref('int_responses__claimed') }}
),

exposures as (
    select
        ad_impressions.tenant_id,
        ad_impressions.impression_id as touch_id,
        ad_impressions.occurred_at,
        ad_impressions.delivery as touch_type,
        'pixel' as signal,
        ad_impressions.evidence,
        ad_impressions.campaign_id,
        ad_impressions.insertion_order_id,
        ad_impressions.ad_unit_id,
        ad_impressions.podcast_id,
        ad_impressions.episode_key,
        ad_impressions.household_key,
        ad_impressions.listener_key,
        null::text as cookie_id,
        null::bytea as hashed_email
    from ad_impressions
),

plays as (
    select
        ad_plays.tenant_id,
        ad_plays.ad_play_id as touch_id,
        ad_plays.occurred_at,
        'play' as touch_type,
        'pixel' as signal,
        'client' as evidence,
        ad_plays.campaign_id,
        null::text as insertion_order_id,
        ad_plays.ad_unit_id,
        ad_plays.podcast_id,
        ad_plays.episode_key,
        ad_plays.household_key,
        ad_plays.listener_key,
        null::text as cookie_id,
        null::bytea as hashed_email
    from ad_plays
    where ad_plays.campaign_id is not null
),

-- A response that names a campaign and is no conversion itself: a visit by a vanity URL, an answer, a code shown.
claims as (
    select
        responses.tenant_id,
        responses.event_id as touch_id,
        responses.occurred_at,
        responses.claim_type as touch_type,
        responses.claim_type as signal,
        responses.signal as evidence,
        responses.claimed_campaign_id as campaign_id,
        responses.claimed_insertion_order_id as insertion_order_id,
        null::text as ad_unit_id,
        null::text as podcast_id,
        null::text as episode_key,
        responses.household_key,
        responses.listener_key,
        responses.cookie_id,
        responses.hashed_email
    from responses
    where responses.claimed_campaign_id is not null and not responses.counts and not responses.is_refund
),

touchpoints as (
    select * from exposures
    union all
    select * from plays
    union all
    select * from claims
)

select * from touchpoints
