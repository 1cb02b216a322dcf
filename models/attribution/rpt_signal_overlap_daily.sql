{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'day']}],
) }}

with conversions as (
    select * from {{ ref('fct_conversions') }}
    where {{ in_slices('occurred_at') }}
),

paths as (
    select * from {{ ref('fct_attribution_paths') }}
    where {{ in_slices('occurred_at') }}
),

-- A touch that a stronger signal outranks claims the conversion all the same: that is the overlap. How paths are made
-- shorter afterwards (attribution_path_transforms) is no matter of signals either.
touched as (
    select
        paths.tenant_id,
        paths.conversion_id,
        paths.occurred_at,
        paths.signal,
        array_agg(distinct paths.campaign_id) as campaign_ids
    from paths
    where coalesce(paths.left_out_as, '') not in ('excluded', 'before_conversion', 'beyond_lookback')
    group by paths.tenant_id, paths.conversion_id, paths.occurred_at, paths.signal
),

claiming as (
    select
        claims.tenant_id,
        claims.conversion_id,
        claims.occurred_at,
        string_agg(claims.signal, ',' order by claims.signal) as signals,
        count(*) as signal_count
    from (
        select
            conversions.tenant_id,
            conversions.conversion_id,
            conversions.occurred_at,
            unnest(string_to_array(nullif(conversions.claims, ''), ',')) as signal
        from conversions
        union
        select
            touched.tenant_id,
            touched.conversion_id,
            touched.occurred_at,
            touched.signal
        from touched
    ) as claims
    group by claims.tenant_id, claims.conversion_id, claims.occurred_at
),

-- Conversions of two signals that have no campaign in common. One who heard of two campaigns and uses the code of one
-- of them is no contradiction.
at_odds as (
    select distinct
        touched.tenant_id,
        touched.conversion_id,
        touched.occurred_at
    from touched
    inner join touched as others
        on
            touched.tenant_id = others.tenant_id
            and touched.conversion_id = others.conversion_id
            and touched.occurred_at = others.occurred_at
            and touched.signal < others.signal
            and not touched.campaign_ids && others.campaign_ids
),

signal_days as (
    select
        conversions.tenant_id,
        (conversions.occurred_at at time zone 'UTC')::date as day,
        conversions.sponsor_id,
        coalesce(claiming.signals, '') as signals,
        coalesce(claiming.signal_count, 0)::integer as signal_count,
        conversions.currency,
        count(*) as conversions,
        sum(conversions.value) as revenue,
        count(*) filter (where conversions.claims_differ or at_odds.conversion_id is not null)
            as conversions_disagreeing
    from conversions
    left join claiming
        on
            conversions.tenant_id = claiming.tenant_id
            and conversions.conversion_id = claiming.conversion_id
            and conversions.occurred_at = claiming.occurred_at
    left join at_odds
        on
            conversions.tenant_id = at_odds.tenant_id
            and conversions.conversion_id = at_odds.conversion_id
            and conversions.occurred_at = at_odds.occurred_at
    group by
        conversions.tenant_id,
        (conversions.occurred_at at time zone 'UTC')::date,
        conversions.sponsor_id,
        coalesce(claiming.signals, ''),
        coalesce(claiming.signal_count, 0)::integer,
        conversions.currency
)

select * from signal_days
