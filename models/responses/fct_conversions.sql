-- Which event stands for an order is found over all of history by an index on the order number.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='28 days',
    keys=['conversion_id', 'household_key'],
    indexes=[
        {'columns': ['occurred_at']},
        {'columns': ['tenant_id', 'occurred_at']},
        {'columns': ['tenant_id', 'order_number']},
        {'columns': ['tenant_id', 'conversion_id']},
        {'columns': ['household_key', 'tenant_id', 'occurred_at']},
        {'columns': ['cookie_id', 'tenant_id', 'occurred_at']},
        {'columns': ['hashed_email', 'tenant_id', 'occurred_at']},
    ],
) }}
{% call looks_at() %}{{ days_of_orders() }}{% endcall %}

-- Read three times: not materialized, so that each reading keeps to its slices or index.
with responses as not materialized (
    select * from {{ ref('int_responses__claimed') }}
    where counts
),

-- Every event of the orders of the slices, whenever it was, and the events of the slices that name no order.
candidates as (
    {% if builds_whole() -%}
        select * from responses
    {%- else -%}
        select of_order.*
        from (
            select distinct
                tenant_id,
                order_number
            from responses
            where {{ in_slices('occurred_at') }} and order_number is not null
        ) as touched
        inner join responses as of_order
            on
                touched.tenant_id = of_order.tenant_id
                and touched.order_number = of_order.order_number
                and of_order.order_number is not null

        union all

        select *
        from responses
        where {{ in_slices('responses.occurred_at') }} and responses.order_number is null
    {%- endif %}
),

-- An event that does not know its sponsor belongs to the order's, where the order has only one. An event without an
-- order number is an order of its own.
ordered as (
    select
        candidates.*,
        case when candidates.order_number is null then candidates.event_id end as lone_event_id,
        case when candidates.order_number is null then candidates.occurred_at end as lone_at,
        case
            when candidates.sponsor_id is not null or candidates.order_number is null then candidates.sponsor_id
            when
                min(candidates.sponsor_id) over of_order = max(candidates.sponsor_id) over of_order
                then min(candidates.sponsor_id) over of_order
        end as order_sponsor_id
    from candidates
    window of_order as (partition by candidates.tenant_id, candidates.order_number)
),

-- Rows that report an order at one time are its lines, and its value is their sum. A line that several files hold is
-- one line: of each value there are as many as one file has at most, whichever file came first. What a browser sends (a
-- pixel, a visit) comes again with the same value where a page is opened again: that is no second line.
reported as (
    select
        ordered.*,
        count(*) over of_file as times
    from ordered
    where not ordered.is_refund
    window
        of_file as (
            partition by
                ordered.tenant_id,
                ordered.order_sponsor_id,
                ordered.order_number,
                ordered.lone_event_id,
                ordered.lone_at,
                ordered.occurred_at,
                ordered.signal,
                ordered.action,
                ordered.source,
                ordered.currency,
                ordered.load_id,
                ordered.value
        )
),

lines as (
    select
        reported.*,
        row_number() over of_value as place
    from reported
    window
        of_value as (
            partition by
                reported.tenant_id,
                reported.order_sponsor_id,
                reported.order_number,
                reported.lone_event_id,
                reported.lone_at,
                reported.occurred_at,
                reported.signal,
                reported.action,
                reported.source,
                reported.currency,
                reported.value
            order by reported.times desc
        )
),

summed as (
    select
        lines.*,
        case
            when lines.order_number is null then lines.value
            when
                lines.signal in ('pixel', 'vanity_url')
                and min(lines.value) over of_lines = max(lines.value) over of_lines
                then lines.value
            else sum(lines.value * lines.times) filter (where lines.place = 1) over of_lines
        end as order_value
    from lines
    window
        of_lines as (
            partition by
                lines.tenant_id,
                lines.order_sponsor_id,
                lines.order_number,
                lines.lone_event_id,
                lines.lone_at,
                lines.occurred_at,
                lines.signal,
                lines.action,
                lines.source,
                lines.currency
        )
),

-- Once by the strength of the signal that reports an event, once by that of the claim that it makes. Event ids decide
-- last, between rows that say the same: where they are made from content they hang on the installation's secret.
ranked as (
    select
        summed.*,
        row_number() over (
            of_order
            order by
                {{ signal_rank('summed.signal') }},
                summed.occurred_at asc,
                summed.order_value desc nulls last,
                summed.currency asc,
                summed.action asc,
                summed.source asc,
                summed.cookie_id asc,
                summed.hashed_email asc,
                summed.event_id asc
        ) as nth,
        row_number() over (
            of_order
            order by
                {{ signal_rank('summed.claim_type') }},
                {{ signal_rank('summed.signal') }},
                summed.occurred_at,
                summed.claimed_campaign_id,
                summed.claimed_insertion_order_id,
                summed.event_id
        ) as nth_claim,
        case when summed.order_value is not null then summed.currency end as currency_of_value,
        least(
            summed.named_campaign_id, summed.survey_campaign_id, summed.code_campaign_id, summed.url_campaign_id
        ) as lowest_claimed,
        greatest(
            summed.named_campaign_id, summed.survey_campaign_id, summed.code_campaign_id, summed.url_campaign_id
        ) as highest_claimed
    from summed
    window
        of_order as (
            partition by
                summed.tenant_id,
                summed.order_sponsor_id,
                summed.order_number,
                summed.lone_event_id,
                summed.lone_at
        )
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
        {{ first_known('ranked.claimed_campaign_id', 'ranked.nth_claim') }} as claimed_campaign_id,
        {{ first_known('ranked.claim_type', 'ranked.nth_claim') }} as claim_type,
        {{ first_known(
            'ranked.claimed_insertion_order_id', 'ranked.nth_claim', where='ranked.claim_type is not null'
        ) }} as claimed_insertion_order_id,
        concat_ws(
            ',',
            case when count(ranked.named_campaign_id) > 0 then 'campaign_id' end,
            case when count(ranked.code_campaign_id) > 0 then 'promo_code' end,
            case when count(ranked.survey_campaign_id) > 0 then 'survey' end,
            case when count(ranked.url_campaign_id) > 0 then 'vanity_url' end
        ) as claims,
        coalesce(min(ranked.lowest_claimed) <> max(ranked.highest_claimed), false) as claims_differ,
        {{ first_known('ranked.household_key', 'ranked.nth') }} as household_key,
        {{ first_known('ranked.listener_key', 'ranked.nth') }} as listener_key,
        {{ first_known('ranked.cookie_id', 'ranked.nth') }} as cookie_id,
        {{ first_known('ranked.hashed_email', 'ranked.nth') }} as hashed_email,
        {{ first_known('ranked.is_new_customer', 'ranked.nth') }} as is_new_customer,
        coalesce({{ first_known('ranked.order_value', 'ranked.nth') }}, 0) as gross_value,
        coalesce(min(ranked.order_value) <> max(ranked.order_value), false) as values_differ,
        coalesce(
            {{ first_known('ranked.currency_of_value', 'ranked.nth') }},
            {{ first_known('ranked.currency', 'ranked.nth') }}
        ) as currency
    from ranked
    group by
        ranked.tenant_id, ranked.order_sponsor_id, ranked.order_number, ranked.lone_event_id, ranked.lone_at
),

-- What was paid back. In another currency than the order's it cannot be taken off; of several signals that report it
-- the strongest is believed.
refund_events as (
    select
        orders.tenant_id,
        orders.conversion_id,
        orders.occurred_at,
        ordered.value,
        {{ signal_rank('ordered.signal') }} as strength,
        min({{ signal_rank('ordered.signal') }}) over (
            partition by orders.tenant_id, orders.conversion_id, orders.occurred_at
        ) as strongest
    from orders
    inner join ordered
        on
            orders.tenant_id = ordered.tenant_id
            and orders.order_number = ordered.order_number
            and orders.sponsor_id is not distinct from ordered.order_sponsor_id
            and coalesce(orders.currency = ordered.currency, true)
    where ordered.is_refund
),

refunds as (
    select
        refund_events.tenant_id,
        refund_events.conversion_id,
        refund_events.occurred_at,
        sum(refund_events.value) as refunded_value
    from refund_events
    where refund_events.strength = refund_events.strongest
    group by refund_events.tenant_id, refund_events.conversion_id, refund_events.occurred_at
),

conversions as (
    select
        orders.*,
        coalesce(refunds.refunded_value, 0) as refunded_value,
        orders.gross_value + coalesce(refunds.refunded_value, 0) as value
    from orders
    left join refunds
        on
            orders.tenant_id = refunds.tenant_id
            and orders.conversion_id = refunds.conversion_id
            and orders.occurred_at = refunds.occurred_at
    where {{ in_slices('orders.occurred_at') }}
)

select * from conversions
