-- What becomes of a refund depends on the other events of its order, whenever they were. They are looked up by
-- order number over all of history, for the refunds of the window alone.
{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'day']}],
) }}
{% call looks_at() %}{{ days_of_orders() }}{% endcall %}

-- Read twice: not materialized, so that each reading keeps to its window or index.
with responses as not materialized (
    select * from {{ ref('int_responses__claimed') }}
),

all_conversions as not materialized (
    select * from {{ ref('fct_conversions') }}
),

events as (
    select * from responses
    where {{ in_slices('occurred_at') }}
),

conversions as (
    select * from all_conversions
    where {{ in_slices('occurred_at') }}
),

refunded_orders as (
    select distinct
        events.tenant_id,
        events.order_number
    from events
    where events.counts and events.is_refund and events.order_number is not null
),

-- The advertiser of an order is found as in fct_conversions.
ordered as (
    select
        of_order.*,
        case
            when of_order.sponsor_id is not null then of_order.sponsor_id
            when
                min(of_order.sponsor_id) over whole_order = max(of_order.sponsor_id) over whole_order
                then min(of_order.sponsor_id) over whole_order
        end as order_sponsor_id
    from refunded_orders
    inner join responses as of_order
        on
            refunded_orders.tenant_id = of_order.tenant_id
            and refunded_orders.order_number = of_order.order_number
            and of_order.order_number is not null
    where of_order.counts
    window whole_order as (partition by of_order.tenant_id, of_order.order_number)
),

orders as (
    select
        all_conversions.tenant_id,
        all_conversions.order_number,
        all_conversions.sponsor_id,
        all_conversions.conversion_id,
        all_conversions.currency
    from refunded_orders
    inner join all_conversions
        on
            refunded_orders.tenant_id = all_conversions.tenant_id
            and refunded_orders.order_number = all_conversions.order_number
            and all_conversions.order_number is not null
),

refund_outcomes as (
    select
        ordered.tenant_id,
        ordered.event_id,
        ordered.occurred_at,
        case
            when orders.conversion_id is null then 'refund_without_order'
            when orders.currency <> ordered.currency then 'refund_other_currency'
            when
                {{ signal_rank('ordered.signal') }} > min({{ signal_rank('ordered.signal') }}) over (
                    partition by
                        orders.tenant_id,
                        orders.conversion_id,
                        coalesce(orders.currency <> ordered.currency, false)
                )
                then 'refund_repeated'
            else 'refund'
        end as outcome
    from ordered
    left join orders
        on
            ordered.tenant_id = orders.tenant_id
            and ordered.order_number = orders.order_number
            and coalesce(ordered.order_sponsor_id, '') = coalesce(orders.sponsor_id, '')
    where ordered.is_refund
),

outcomes as (
    select
        events.*,
        case
            when events.is_refund and events.counts then coalesce(refund_outcomes.outcome, 'refund_without_order')
            when conversions.conversion_id is not null then 'conversion'
            when events.counts then 'same_order'
            when events.claimed_campaign_id is not null and not events.is_refund then 'touch'
            else 'not_counted'
        end as outcome
    from events
    left join conversions
        on
            events.tenant_id = conversions.tenant_id
            and events.event_id = conversions.conversion_id
            and events.occurred_at = conversions.occurred_at
    left join refund_outcomes
        on
            events.tenant_id = refund_outcomes.tenant_id
            and events.event_id = refund_outcomes.event_id
            and events.occurred_at = refund_outcomes.occurred_at
),

outcome_days as (
    select
        outcomes.tenant_id,
        (outcomes.occurred_at at time zone 'UTC')::date as day,
        outcomes.sponsor_id,
        outcomes.signal,
        outcomes.action,
        outcomes.outcome,
        outcomes.currency,
        count(*) as events,
        coalesce(sum(outcomes.value), 0) as value
    from outcomes
    group by
        outcomes.tenant_id,
        (outcomes.occurred_at at time zone 'UTC')::date,
        outcomes.sponsor_id,
        outcomes.signal,
        outcomes.action,
        outcomes.outcome,
        outcomes.currency
)

select * from outcome_days
