with campaigns as (
    select
        tenant_id,
        campaign_id,
        sponsor_id,
        name,
        flight_starts_at,
        flight_ends_at,
        conversion_actions,
        lookback_days,
        currency
    from {{ ref('stg_raw__campaigns') }}
)

select * from campaigns
