-- Figures that cannot be refreshed by slices: one late exposure moves a household from one group to the other.
-- The second hook: the planner takes joins of what it has no statistics of for tiny, where a nested loop goes through
-- all pairs of households.
{{ config(
    materialized='table',
    tags=['fit'],
    pre_hook=[
        'select timeseries.read_columnstore_safely()',
        'set local enable_nestloop = off',
    ],
) }}

{% set z = 1.959963984540054 %}

with campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

periods as (
    select * from {{ ref('int_campaigns__observed') }}
),

households as (
    select * from {{ ref('int_households__observed') }}
),

holdouts as (
    select * from {{ ref('attribution_holdouts') }}
),

conversions as (
    select * from {{ ref('fct_conversions') }}
),

downloads as (
    select * from {{ ref('fct_downloads') }}
),

listeners as (
    select distinct
        downloads.tenant_id,
        downloads.household_key
    from downloads
    where downloads.household_key is not null
),

controls as (
    select
        campaigns.tenant_id,
        campaigns.campaign_id,
        'unexposed' as control
    from campaigns

    union all

    select distinct
        holdouts.tenant_id,
        holdouts.campaign_id,
        'holdout' as control
    from holdouts
    inner join campaigns
        on holdouts.tenant_id = campaigns.tenant_id and holdouts.campaign_id = campaigns.campaign_id
),

arms as (
    select
        households.tenant_id,
        households.campaign_id,
        households.arm,
        count(*) as households,
        count(*) filter (where households.is_cut) as cut_households,
        count(*) filter (where households.conversions > 0) as converters,
        sum(households.days) as days,
        sum(households.conversions)::bigint as conversions
    from households
    group by households.tenant_id, households.campaign_id, households.arm
),

-- What the sponsor was told of in the time of the comparison, and how much of it could be laid to a household.
all_conversions as (
    select
        periods.tenant_id,
        periods.campaign_id,
        count(*) as conversions,
        count(conversions.household_key) as identified,
        count(listeners.household_key) as matched
    from periods
    inner join conversions
        on periods.tenant_id = conversions.tenant_id and periods.sponsor_id = conversions.sponsor_id
    left join listeners
        on conversions.tenant_id = listeners.tenant_id and conversions.household_key = listeners.household_key
    where
        conversions.action = any(periods.conversion_actions)
        and conversions.occurred_at >= periods.observed_from
        and conversions.occurred_at < periods.observed_until
    group by periods.tenant_id, periods.campaign_id
),

compared as (
    select
        controls.tenant_id,
        controls.campaign_id,
        controls.control,
        periods.observed_from,
        periods.observed_until,
        coalesce(exposed.households, 0) as exposed_households,
        coalesce(exposed.days, 0) as exposed_days,
        coalesce(exposed.converters, 0) as exposed_converters,
        coalesce(exposed.conversions, 0) as exposed_conversions,
        coalesce(exposed.cut_households, 0) as overlap_households,
        coalesce(control_arm.households, 0) as control_households,
        coalesce(control_arm.days, 0) as control_days,
        coalesce(control_arm.converters, 0) as control_converters,
        coalesce(control_arm.conversions, 0) as control_conversions,
        exposed.conversions / exposed.days as exposed_rate,
        control_arm.conversions / control_arm.days as control_rate,
        least(
            coalesce(exposed.conversions, 0),
            coalesce(control_arm.conversions, 0),
            coalesce(exposed.days - exposed.conversions, 0),
            coalesce(control_arm.days - control_arm.conversions, 0)
        ) >= 5 as is_normal,
        coalesce(all_conversions.conversions, 0) as sponsor_conversions,
        coalesce(all_conversions.identified, 0) as identified_conversions,
        coalesce(all_conversions.matched, 0) as matched_conversions
    from controls
    left join periods
        on controls.tenant_id = periods.tenant_id and controls.campaign_id = periods.campaign_id
    left join arms as exposed
        on
            controls.tenant_id = exposed.tenant_id
            and controls.campaign_id = exposed.campaign_id
            and exposed.arm = 'exposed'
    left join arms as control_arm
        on
            controls.tenant_id = control_arm.tenant_id
            and controls.campaign_id = control_arm.campaign_id
            and controls.control = control_arm.arm
    left join all_conversions
        on controls.tenant_id = all_conversions.tenant_id and controls.campaign_id = all_conversions.campaign_id
),

-- The score interval of each rate (docs/lift.md): it holds for few conversions too, and for none.
scored as (
    select
        compared.*,
        compared.exposed_rate - compared.control_rate as rate_difference,
        (
            compared.exposed_conversions + {{ z * z / 2 }}
            - {{ z }} * sqrt(compared.exposed_conversions + {{ z * z / 4 }})
        ) / nullif(compared.exposed_days, 0) as exposed_low,
        (
            compared.exposed_conversions + {{ z * z / 2 }}
            + {{ z }} * sqrt(compared.exposed_conversions + {{ z * z / 4 }})
        ) / nullif(compared.exposed_days, 0) as exposed_high,
        (
            compared.control_conversions + {{ z * z / 2 }}
            - {{ z }} * sqrt(compared.control_conversions + {{ z * z / 4 }})
        ) / nullif(compared.control_days, 0) as control_low,
        (
            compared.control_conversions + {{ z * z / 2 }}
            + {{ z }} * sqrt(compared.control_conversions + {{ z * z / 4 }})
        ) / nullif(compared.control_days, 0) as control_high
    from compared
),

-- How far off the difference can be on either side, and the ratio of the rates.
spread as (
    select
        scored.*,
        case
            when scored.is_normal
                then {{ z }} * sqrt(
                    scored.exposed_rate * (1 - scored.exposed_rate) / scored.exposed_days
                    + scored.control_rate * (1 - scored.control_rate) / scored.control_days
                )
            else sqrt(
                power(scored.exposed_rate - scored.exposed_low, 2) + power(scored.control_high - scored.control_rate, 2)
            )
        end as below,
        case
            when scored.is_normal
                then {{ z }} * sqrt(
                    scored.exposed_rate * (1 - scored.exposed_rate) / scored.exposed_days
                    + scored.control_rate * (1 - scored.control_rate) / scored.control_days
                )
            else sqrt(
                power(scored.exposed_high - scored.exposed_rate, 2) + power(scored.control_rate - scored.control_low, 2)
            )
        end as above,
        scored.exposed_rate / nullif(scored.control_rate, 0) as ratio,
        case
            when scored.is_normal
                then exp({{ z }} * sqrt(
                    (1 - scored.exposed_rate) / scored.exposed_conversions
                    + (1 - scored.control_rate) / scored.control_conversions
                ))
        end as ratio_spread
    from scored
),

lift as (
    select
        spread.*,
        spread.rate_difference - spread.below as difference_low,
        spread.rate_difference + spread.above as difference_high,
        spread.exposed_days * spread.rate_difference as incremental_conversions,
        spread.exposed_days * (spread.rate_difference - spread.below) as incremental_low,
        spread.exposed_days * (spread.rate_difference + spread.above) as incremental_high,
        spread.identified_conversions::double precision / nullif(spread.sponsor_conversions, 0) as identified_share,
        spread.matched_conversions::double precision / nullif(spread.sponsor_conversions, 0) as matched_share
    from spread
),

final as (
    select
        lift.tenant_id,
        lift.campaign_id,
        lift.control,
        lift.observed_from,
        lift.observed_until,
        lift.exposed_households,
        lift.exposed_converters,
        lift.exposed_days,
        lift.exposed_conversions,
        lift.control_households,
        lift.control_converters,
        lift.control_days,
        lift.control_conversions,
        lift.overlap_households,
        lift.exposed_rate,
        lift.control_rate,
        lift.rate_difference,
        lift.difference_low,
        lift.difference_high,
        case
            when lift.is_normal then 'normal'
            when lift.rate_difference is not null then 'score'
        end as interval_method,
        lift.ratio - 1 as lift,
        lift.ratio / lift.ratio_spread - 1 as lift_low,
        lift.ratio * lift.ratio_spread - 1 as lift_high,
        lift.incremental_conversions,
        lift.incremental_low,
        lift.incremental_high,
        lift.sponsor_conversions,
        lift.identified_conversions,
        lift.matched_conversions,
        lift.identified_share,
        lift.matched_share,
        lift.incremental_conversions / nullif(lift.identified_share, 0) as modelled_incremental_conversions,
        least(
            lift.incremental_low / nullif(lift.identified_share, 0),
            lift.incremental_low / nullif(lift.matched_share, 0)
        ) as modelled_low,
        greatest(
            lift.incremental_high / nullif(lift.identified_share, 0),
            lift.incremental_high / nullif(lift.matched_share, 0)
        ) as modelled_high
    from lift
)

select * from final
