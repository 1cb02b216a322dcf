{{ config(
    materialized='hypertable',
    time_column='day',
    chunk_interval='84 days',
    indexes=[{'columns': ['tenant_id', 'ad_unit_id', 'day'], 'unique': true}],
) }}

with ad_plays as (
    select * from {{ ref('fct_ad_plays') }}
),

figures as (
    select
        ad_plays.tenant_id,
        ad_plays.ad_unit_id,
        (ad_plays.occurred_at at time zone 'UTC')::date as day,
        min(ad_plays.campaign_id) as campaign_id,
        count(*) as starts,
        count(*) filter (where ad_plays.furthest_quartile >= 25) as first_quartile,
        count(*) filter (where ad_plays.furthest_quartile >= 50) as midpoint,
        count(*) filter (where ad_plays.furthest_quartile >= 75) as third_quartile,
        count(*) filter (where ad_plays.is_complete) as complete,
        count(distinct ad_plays.listener_key) as listeners
    from ad_plays
    where {{ in_slices('ad_plays.occurred_at') }}
    group by ad_plays.tenant_id, ad_plays.ad_unit_id, (ad_plays.occurred_at at time zone 'UTC')::date
),

ad_unit_days as (
    select
        figures.tenant_id,
        figures.ad_unit_id,
        figures.day,
        figures.campaign_id,
        figures.starts,
        figures.first_quartile,
        figures.midpoint,
        figures.third_quartile,
        figures.complete,
        figures.complete / figures.starts::double precision as completion_rate,
        figures.listeners
    from figures
)

select * from ad_unit_days
