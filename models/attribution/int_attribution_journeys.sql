with all_conversions as (
    select * from {{ ref('fct_conversions') }}
),

months as (
    select * from {{ ref('int_conversions__by_month') }}
),

paths as (
    select * from {{ ref('fct_attribution_paths') }}
),

touchpoints as (
    select * from {{ ref('int_touchpoints') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

channels as (
    select * from {{ ref('attribution_channels') }}
),

conversions as (
    select
        all_conversions.*,
        (date_trunc('month', all_conversions.occurred_at, 'UTC') at time zone 'UTC')::date as month,
        coalesce(all_conversions.sponsor_id, '') as known_sponsor_id
    from all_conversions
),

converting as (
    select
        paths.tenant_id,
        paths.conversion_id,
        paths.occurred_at,
        array_agg(paths.channel order by paths.position) as channels
    from paths
    where paths.position is not null
    group by paths.tenant_id, paths.conversion_id, paths.occurred_at
),

converted as (
    select
        months.tenant_id,
        months.month,
        months.sponsor_id,
        converting.channels,
        count(*) as conversions,
        coalesce(sum(conversions.value) filter (where conversions.currency is not distinct from months.currency), 0)
            as revenue,
        0 as nulls
    from converting
    inner join conversions
        on
            converting.tenant_id = conversions.tenant_id
            and converting.conversion_id = conversions.conversion_id
            and converting.occurred_at = conversions.occurred_at
    inner join months
        on
            conversions.tenant_id = months.tenant_id
            and conversions.month = months.month
            and conversions.known_sponsor_id = months.sponsor_id
    group by months.tenant_id, months.month, months.sponsor_id, converting.channels
),

-- Touches of a converting path, also those by which it was shortened: a repeat of a touch that led to a conversion is
-- not a journey that came to nothing. One that was too old, or before a cut, is none of that path.
led_to_conversion as (
    select distinct
        paths.tenant_id,
        paths.touch_id
    from paths
    where
        paths.position is not null
        or paths.left_out_as in ('confirms_impression', 'outranked', 'collapsed', 'repeated', 'dropped')
),

others as (
    select
        touchpoints.*,
        touchpoints.occurred_at as touch_at,
        'household' as match_type,
        (date_trunc('month', touchpoints.occurred_at, 'UTC') at time zone 'UTC')::date as month,
        coalesce(campaigns.sponsor_id, '') as campaign_sponsor_id
    from touchpoints
    inner join campaigns
        on touchpoints.tenant_id = campaigns.tenant_id and touchpoints.campaign_id = campaigns.campaign_id
    left join led_to_conversion
        on touchpoints.tenant_id = led_to_conversion.tenant_id and touchpoints.touch_id = led_to_conversion.touch_id
    where touchpoints.household_key is not null and led_to_conversion.touch_id is null
),

others_channelled as (
    select
        others.*,
        {{ attribution_channel('others') }} as channel,
        null::text as set_aside
    from others
    where not exists (
        select 1
        from channels
        where
            channels.treat_as = 'excluded'
            and coalesce(channels.tenant_id, others.tenant_id) = others.tenant_id
            and channels.value = {{ value_of_dimension('channels.dimension', 'others') }}
    )
),

-- The same steps as for converting paths: what a path is does not depend on how it ended.
others_positioned as (
    {{ positioned('others_channelled', 'tenant_id, month, campaign_sponsor_id, household_key') }}
),

unconverted as (
    select
        others_positioned.tenant_id,
        others_positioned.month,
        others_positioned.campaign_sponsor_id as sponsor_id,
        array_agg(others_positioned.channel order by others_positioned.position) as channels
    from others_positioned
    where others_positioned.position is not null
    group by
        others_positioned.tenant_id,
        others_positioned.month,
        others_positioned.campaign_sponsor_id,
        others_positioned.household_key
),

either as (
    select
        converted.tenant_id,
        converted.month,
        converted.sponsor_id,
        converted.channels,
        converted.conversions,
        converted.revenue,
        converted.nulls
    from converted

    union all

    select
        unconverted.tenant_id,
        unconverted.month,
        unconverted.sponsor_id,
        unconverted.channels,
        0 as conversions,
        0 as revenue,
        count(*) as nulls
    from unconverted
    group by unconverted.tenant_id, unconverted.month, unconverted.sponsor_id, unconverted.channels
),

journeys as (
    select
        either.tenant_id,
        either.month,
        either.sponsor_id,
        either.channels,
        sum(either.conversions)::bigint as conversions,
        sum(either.revenue) as revenue,
        sum(either.nulls)::bigint as nulls
    from either
    group by either.tenant_id, either.month, either.sponsor_id, either.channels
)

select * from journeys
