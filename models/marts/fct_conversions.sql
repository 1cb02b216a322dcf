-- Which event stands for an order is found over all of history by an index on the order number, so no window
-- needs widening: a load marks the days of every row of an order as changed.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='28 days',
    indexes=[{'columns': ['occurred_at']}, {'columns': ['tenant_id', 'occurred_at']}],
) }}

-- Read three times: not materialized, so that each reading keeps to its window or index.
with events as not materialized (
    select
        tenant_id,
        event_id,
        occurred_at,
        action,
        signal,
        source,
        sponsor_id,
        campaign_id,
        household_key,
        listener_key,
        order_number,
        value,
        currency,
        discount_code,
        url,
        is_new_customer
    from {{ ref('stg_raw__attribution_events') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

claims as (
    select * from {{ ref('int_campaigns__claims') }}
),

-- Every event of the orders of the window, whenever it was, and the events of the window that name no order.
candidates as (
    {% if builds_whole() -%}
        select * from events
    {%- else -%}
        select of_order.*
        from (
            select distinct
                tenant_id,
                order_number
            from events
            where {{ in_window('occurred_at') }} and order_number is not null
        ) as touched
        inner join events as of_order
            on
                touched.tenant_id = of_order.tenant_id
                and touched.order_number = of_order.order_number
                and of_order.order_number is not null

        union all

        select *
        from events
        where {{ in_window('events.occurred_at') }} and events.order_number is null
    {%- endif %}
),

shown as (
    select
        candidates.tenant_id,
        candidates.event_id,
        candidates.occurred_at,
        candidates.sponsor_id,
        'promo_code' as claim_type,
        upper(trim(candidates.discount_code)) as claim_key
    from candidates
    where candidates.discount_code is not null

    union all

    select
        candidates.tenant_id,
        candidates.event_id,
        candidates.occurred_at,
        candidates.sponsor_id,
        'vanity_url' as claim_type,
        {{ plain_url('candidates.url') }} as claim_key
    from candidates
    where candidates.url is not null
),

matched as (
    select
        shown.tenant_id,
        shown.event_id,
        shown.occurred_at,
        shown.claim_type,
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

-- The campaign that the event names, else the one its code claims, else the one its URL claims.
claimed as (
    select
        candidates.*,
        coalesce(named.campaign_id, by_code.campaign_id, by_url.campaign_id) as claimed_campaign_id,
        case
            when named.campaign_id is not null then 'campaign_id'
            when by_code.campaign_id is not null then 'promo_code'
            when by_url.campaign_id is not null then 'vanity_url'
        end as claim_type,
        case
            when named.campaign_id is not null then null
            when by_code.campaign_id is not null then by_code.insertion_order_id
            else by_url.insertion_order_id
        end as claimed_insertion_order_id
    from candidates
    left join campaigns as named
        on candidates.tenant_id = named.tenant_id and candidates.campaign_id = named.campaign_id
    left join settled as by_code
        on
            candidates.tenant_id = by_code.tenant_id
            and candidates.event_id = by_code.event_id
            and candidates.occurred_at = by_code.occurred_at
            and by_code.claim_type = 'promo_code'
    left join settled as by_url
        on
            candidates.tenant_id = by_url.tenant_id
            and candidates.event_id = by_url.event_id
            and candidates.occurred_at = by_url.occurred_at
            and by_url.claim_type = 'vanity_url'
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

-- A response is a conversion where a campaign of its sponsor, or the claimed one, counts its action.
counting as (
    select
        sponsored.*,
        case sponsored.signal
            when 'promo_code' then 1
            when 'vanity_url' then 2
            when 'pixel' then 3
            when 'survey' then 4
            when 'offline' then 5
        end as precedence
    from sponsored
    where exists (
        select 1
        from campaigns
        where
            sponsored.tenant_id = campaigns.tenant_id
            and sponsored.action = any(campaigns.conversion_actions)
            and (
                sponsored.known_sponsor_id is null
                or sponsored.known_sponsor_id = campaigns.sponsor_id
                or sponsored.claimed_campaign_id = campaigns.campaign_id
            )
    )
),

-- An event that does not know its sponsor belongs to the order's, where the order has only one.
ordered as (
    select
        counting.*,
        coalesce(
            counting.known_sponsor_id,
            case
                when
                    min(counting.known_sponsor_id) over of_order = max(counting.known_sponsor_id) over of_order
                    then min(counting.known_sponsor_id) over of_order
            end
        ) as order_sponsor_id
    from counting
    where counting.order_number is not null
    window of_order as (partition by counting.tenant_id, counting.order_number)
),

ranked as (
    select
        ordered.*,
        row_number() over (
            partition by ordered.tenant_id, ordered.order_sponsor_id, ordered.order_number
            order by ordered.precedence, ordered.occurred_at, ordered.event_id
        ) as nth,
        case when ordered.value is not null then ordered.known_currency end as currency_of_value
    from ordered
),

-- One conversion an order: the strongest signal stands for it. What it does not know, the next one tells.
orders as (
    select
        ranked.tenant_id,
        min(ranked.event_id::text) filter (where ranked.nth = 1)::uuid as conversion_id,
        min(ranked.occurred_at) filter (where ranked.nth = 1) as occurred_at,
        min(ranked.action) filter (where ranked.nth = 1) as action,
        min(ranked.signal) filter (where ranked.nth = 1) as signal,
        array_agg(distinct ranked.signal) as signals,
        min(ranked.source) filter (where ranked.nth = 1) as source,
        ranked.order_sponsor_id as sponsor_id,
        ranked.order_number,
        {{ first_known('ranked.claimed_campaign_id', 'ranked.nth') }} as claimed_campaign_id,
        {{ first_known('ranked.claim_type', 'ranked.nth') }} as claim_type,
        {{ first_known('ranked.claimed_insertion_order_id', 'ranked.nth', where='ranked.claim_type is not null') }}
            as claimed_insertion_order_id,
        {{ first_known('ranked.household_key', 'ranked.nth') }} as household_key,
        {{ first_known('ranked.listener_key', 'ranked.nth') }} as listener_key,
        {{ first_known('ranked.is_new_customer', 'ranked.nth') }} as is_new_customer,
        coalesce({{ first_known('ranked.value', 'ranked.nth') }}, 0) as value,
        coalesce(
            {{ first_known('ranked.currency_of_value', 'ranked.nth') }},
            {{ first_known('ranked.known_currency', 'ranked.nth') }}
        ) as currency
    from ranked
    group by ranked.tenant_id, ranked.order_sponsor_id, ranked.order_number
),

others as (
    select
        counting.tenant_id,
        counting.event_id as conversion_id,
        counting.occurred_at,
        counting.action,
        counting.signal,
        array[counting.signal] as signals,
        counting.source,
        counting.known_sponsor_id as sponsor_id,
        counting.order_number,
        counting.claimed_campaign_id,
        counting.claim_type,
        counting.claimed_insertion_order_id,
        counting.household_key,
        counting.listener_key,
        counting.is_new_customer,
        coalesce(counting.value, 0) as value,
        counting.known_currency as currency
    from counting
    where counting.order_number is null
),

conversions as (
    select * from orders
    where {{ in_window('orders.occurred_at') }}
    union all
    select * from others
)

select * from conversions
