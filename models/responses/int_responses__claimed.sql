-- What each response says by itself: the campaigns that it names, by id, code or URL, and whether one counts it. So the
-- orders (fct_conversions) and the touches (int_touchpoints) read the same. What reads them finds by their order and
-- identities what hangs on one that changed.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='28 days',
    keys=['order_number', 'household_key', 'cookie_id', 'hashed_email'],
    indexes=[
        {'columns': ['occurred_at']},
        {'columns': ['tenant_id', 'order_number']},
        {'columns': ['household_key', 'tenant_id', 'occurred_at']},
        {'columns': ['cookie_id', 'tenant_id', 'occurred_at']},
        {'columns': ['hashed_email', 'tenant_id', 'occurred_at']},
    ],
) }}

-- Read more than once: not materialized, so that each reading keeps to its slices.
with events as not materialized (
    select * from {{ ref('stg_raw__attribution_events') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

claims as (
    select * from {{ ref('int_campaigns__claims') }}
),

-- Shops write several codes into one field. A field is first taken for one code, then for several with commas,
-- semicolons or bars between, then with spaces between.
shown as (
    select distinct
        events.tenant_id,
        events.event_id,
        events.occurred_at,
        events.sponsor_id,
        'promo_code' as claim_type,
        codes.way,
        upper(trim(codes.code)) as claim_key
    from events
    cross join
        lateral (  -- noqa: ST05
            select
                1 as way,
                events.discount_code as code
            union all
            select
                2 as way,
                regexp_split_to_table(translate(events.discount_code, '[]"', ''), '[,;|]+') as code
            where events.discount_code ~ '[,;|]'
            union all
            select
                3 as way,
                regexp_split_to_table(translate(events.discount_code, '[]"', ''), '[,;|\s]+') as code
            where events.discount_code ~ '\s'
        ) as codes
    where {{ in_slices('events.occurred_at') }} and events.discount_code is not null

    union all

    select
        events.tenant_id,
        events.event_id,
        events.occurred_at,
        events.sponsor_id,
        'vanity_url' as claim_type,
        1 as way,
        {{ plain_url('events.url') }} as claim_key
    from events
    where {{ in_slices('events.occurred_at') }} and events.url is not null
),

found as (
    select
        shown.tenant_id,
        shown.event_id,
        shown.occurred_at,
        shown.claim_type,
        shown.way,
        min(shown.way) over (
            partition by shown.tenant_id, shown.event_id, shown.occurred_at, shown.claim_type
        ) as first_way,
        claims.campaign_id,
        claims.insertion_order_id,
        shown.occurred_at < claims.ends_at as in_flight
    from shown
    inner join claims
        on
            shown.tenant_id = claims.tenant_id
            and shown.claim_type = claims.claim_type
            and shown.claim_key = claims.claim_key
            and shown.occurred_at >= claims.starts_at
            and shown.occurred_at < claims.honoured_until
            and (shown.sponsor_id is null or shown.sponsor_id = claims.sponsor_id)
),

matched as (
    select * from found
    where way = first_way
),

-- A code or URL claims a campaign where it points to exactly one: of those in flight at that time, or where none
-- is, of those that lately were.
settled as (
    select
        matched.tenant_id,
        matched.event_id,
        matched.occurred_at,
        matched.claim_type,
        case
            when bool_or(matched.in_flight)
                then min(matched.campaign_id) filter (where matched.in_flight)
            else min(matched.campaign_id)
        end as campaign_id,
        case
            when bool_or(matched.in_flight) and count(*) filter (where matched.in_flight) = 1
                then min(matched.insertion_order_id) filter (where matched.in_flight)
            when not bool_or(matched.in_flight) and count(*) = 1
                then min(matched.insertion_order_id)
        end as insertion_order_id
    from matched
    group by matched.tenant_id, matched.event_id, matched.occurred_at, matched.claim_type
    having
        count(distinct matched.campaign_id) filter (where matched.in_flight) = 1
        or (not bool_or(matched.in_flight) and count(distinct matched.campaign_id) = 1)
),

named as (
    select
        events.*,
        case when events.signal <> 'survey' then named.campaign_id end as named_campaign_id,
        -- The answer to a question: the campaign that it names is not known as surely.
        case when events.signal = 'survey' then named.campaign_id end as survey_campaign_id,
        by_code.campaign_id as code_campaign_id,
        by_code.insertion_order_id as code_insertion_order_id,
        by_url.campaign_id as url_campaign_id,
        by_url.insertion_order_id as url_insertion_order_id
    from events
    left join campaigns as named
        on events.tenant_id = named.tenant_id and events.campaign_id = named.campaign_id
    left join settled as by_code
        on
            events.tenant_id = by_code.tenant_id
            and events.event_id = by_code.event_id
            and events.occurred_at = by_code.occurred_at
            and by_code.claim_type = 'promo_code'
    left join settled as by_url
        on
            events.tenant_id = by_url.tenant_id
            and events.event_id = by_url.event_id
            and events.occurred_at = by_url.occurred_at
            and by_url.claim_type = 'vanity_url'
    where {{ in_slices('events.occurred_at') }}
),

-- Of several claims of one event the strongest is believed.
claimed as (
    select
        named.*,
        believed.claim_type,
        believed.campaign_id as claimed_campaign_id,
        believed.insertion_order_id as claimed_insertion_order_id
    from named
    left join
        lateral (
            select
                claim.claim_type,
                claim.campaign_id,
                claim.insertion_order_id
            from (
                values
                ('campaign_id', named.named_campaign_id, null),
                ('survey', named.survey_campaign_id, null),
                ('promo_code', named.code_campaign_id, named.code_insertion_order_id),
                ('vanity_url', named.url_campaign_id, named.url_insertion_order_id)
            ) as claim (claim_type, campaign_id, insertion_order_id)
            where claim.campaign_id is not null
            order by {{ signal_rank('claim.claim_type') }}
            limit 1
        ) as believed
        on true
),

sponsored as (
    select
        claimed.*,
        coalesce(claimed.sponsor_id, campaigns.sponsor_id) as known_sponsor_id,
        coalesce(claimed.currency, campaigns.currency) as known_currency
    from claimed
    left join campaigns
        on claimed.tenant_id = campaigns.tenant_id and claimed.claimed_campaign_id = campaigns.campaign_id
),

-- A response may be a conversion where a campaign of its sponsor, or the claimed one, counts its action.
responses as (
    select
        sponsored.tenant_id,
        sponsored.event_id,
        sponsored.occurred_at,
        sponsored.action,
        sponsored.signal,
        sponsored.source,
        sponsored.known_sponsor_id as sponsor_id,
        sponsored.household_key,
        sponsored.listener_key,
        sponsored.cookie_id,
        sponsored.hashed_email,
        sponsored.order_number,
        sponsored.value,
        sponsored.known_currency as currency,
        sponsored.is_new_customer,
        sponsored.load_id,
        sponsored.named_campaign_id,
        sponsored.survey_campaign_id,
        sponsored.code_campaign_id,
        sponsored.url_campaign_id,
        sponsored.claim_type,
        sponsored.claimed_campaign_id,
        sponsored.claimed_insertion_order_id,
        coalesce(sponsored.value < 0, false) as is_refund,
        counted_by.campaigns > 0 as counts
    from sponsored
    cross join
        lateral (
            select count(*) as campaigns
            from campaigns
            where
                sponsored.tenant_id = campaigns.tenant_id
                and sponsored.action = any(campaigns.conversion_actions)
                and (
                    sponsored.known_sponsor_id is null
                    or sponsored.known_sponsor_id = campaigns.sponsor_id
                    or sponsored.claimed_campaign_id = campaigns.campaign_id
                )
        ) as counted_by
)

select * from responses
