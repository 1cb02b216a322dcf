-- What would be credited if every campaign looked back as far as the window, whatever its own lookback. A touch that
-- another one displaces stands where the window leaves the other out: so the path of each window is made anew, from
-- all touches near the conversion (fct_attribution_paths keeps them).
{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'day']}, {'columns': ['tenant_id', 'campaign_id', 'day']}],
) }}

with conversions as (
    select
        *,
        (occurred_at at time zone 'UTC')::date as day
    from {{ ref('fct_conversions') }}
    where {{ in_slices('occurred_at') }}
),

paths as (
    select * from {{ ref('fct_attribution_paths') }}
    where {{ in_slices('occurred_at') }}
),

models as (
    select * from {{ ref('attribution_models') }}
    where method <> 'markov'
),

windows as (
    select distinct unnest(array[{{ var('attribution_windows_days') | join(', ') }}]::integer[]) as window_days
),

-- No window brings back what is left out for good.
candidates as (
    select
        paths.tenant_id,
        paths.conversion_id,
        paths.occurred_at,
        windows.window_days,
        paths.touch_id,
        paths.touch_type,
        paths.signal,
        paths.touch_at,
        paths.age_seconds,
        paths.channel,
        paths.is_direct,
        paths.campaign_id,
        paths.ad_unit_id,
        paths.match_type,
        null::text as set_aside
    from paths
    inner join windows on paths.age_seconds <= 86400 * windows.window_days
    where coalesce(paths.left_out_as, '') not in ('excluded', 'before_conversion')
),

positioned as (
    {{ positioned('candidates', 'tenant_id, conversion_id, occurred_at, window_days') }}
),

in_path as (
    select * from positioned
    where position is not null
),

credited as (
    {{ credited('in_path', 'models', 'tenant_id, conversion_id, occurred_at, window_days') }}
),

credits as (
    select
        conversions.tenant_id,
        conversions.day,
        credited.window_days,
        credited.model,
        conversions.sponsor_id,
        credited.channel,
        credited.campaign_id,
        conversions.currency,
        credited.credited_to - credited.credited_from as credit,
        round(conversions.value * credited.credited_to, 12) - round(conversions.value * credited.credited_from, 12)
            as revenue
    from credited
    inner join conversions
        on
            credited.tenant_id = conversions.tenant_id
            and credited.conversion_id = conversions.conversion_id
            and credited.occurred_at = conversions.occurred_at

    union all

    select
        conversions.tenant_id,
        conversions.day,
        windows.window_days,
        models.model,
        conversions.sponsor_id,
        null as channel,
        null as campaign_id,
        conversions.currency,
        1 as credit,
        conversions.value as revenue
    from conversions
    cross join windows
    cross join models
    where not exists (
        select 1
        from in_path
        where
            conversions.tenant_id = in_path.tenant_id
            and conversions.conversion_id = in_path.conversion_id
            and conversions.occurred_at = in_path.occurred_at
            and windows.window_days = in_path.window_days
    )
),

window_days as (
    select
        credits.tenant_id,
        credits.day,
        credits.window_days,
        credits.model,
        credits.sponsor_id,
        credits.channel,
        credits.campaign_id,
        credits.currency,
        trim_scale(sum(credits.credit)) as conversions,
        trim_scale(sum(credits.revenue)) as revenue
    from credits
    group by
        credits.tenant_id,
        credits.day,
        credits.window_days,
        credits.model,
        credits.sponsor_id,
        credits.channel,
        credits.campaign_id,
        credits.currency
)

select * from window_days
