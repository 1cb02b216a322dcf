{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'source', 'outcome', 'bucket'], 'unique': true}],
) }}

with outcomes as (
    select * from {{ ref('int_requests__outcomes') }}
),

daily as (
    select
        outcomes.tenant_id,
        date_trunc('day', outcomes.occurred_at, 'UTC') as bucket,
        outcomes.source,
        outcomes.outcome,
        count(*) as requests
    from outcomes
    where {{ in_window('outcomes.occurred_at') }}
    group by outcomes.tenant_id, date_trunc('day', outcomes.occurred_at, 'UTC'), outcomes.source, outcomes.outcome
)

select * from daily
