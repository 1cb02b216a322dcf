with outcomes as (
    select * from {{ ref('cagg_request_outcomes_daily') }}
),

outcome_days as (
    select
        outcomes.tenant_id,
        (outcomes.bucket at time zone 'UTC')::date as day,
        outcomes.podcast_id,
        outcomes.source,
        outcomes.outcome,
        outcomes.download_window,
        outcomes.threshold_basis,
        outcomes.agent_list,
        outcomes.requests
    from outcomes
)

select * from outcome_days
