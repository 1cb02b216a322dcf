-- Every attribution event ends in exactly one outcome: per tenant and UTC day there are as many outcomes as events, of
-- the same value, and as many conversions as the facts have.
{{ config(meta={'dagster': {'ref': {'name': 'rpt_response_outcomes_daily'}}}) }}
with both_sides as (
    select
        tenant_id,
        (occurred_at at time zone 'UTC')::date as day,
        1 as events,
        coalesce(value, 0) as value,
        0 as conversions
    from {{ ref('int_responses__claimed') }}
    where {{ in_slices('occurred_at') }}

    union all

    select
        tenant_id,
        (occurred_at at time zone 'UTC')::date as day,
        0 as events,
        0 as value,
        1 as conversions
    from {{ ref('fct_conversions') }}
    where {{ in_slices('occurred_at') }}

    union all

    select
        tenant_id,
        day,
        -events as events,
        -value as value,
        case when outcome = 'conversion' then -events else 0 end as conversions
    from {{ ref('rpt_response_outcomes_daily') }}
    where {{ in_slices('day', column_type='date') }}
)

select
    tenant_id,
    day,
    sum(events) as events_too_few,
    sum(value) as value_too_little,
    sum(conversions) as conversions_too_few
from both_sides
group by tenant_id, day
having sum(events) <> 0 or sum(value) <> 0 or sum(conversions) <> 0
