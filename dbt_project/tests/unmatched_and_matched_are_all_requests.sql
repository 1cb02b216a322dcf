-- No request is lost: those that found an episode and those that did not are, per tenant and UTC day, all of them.
{{ config(meta={'dagster': {'ref': {'name': 'cagg_unmatched_urls_daily'}}}) }}
with requests as (
    select
        tenant_id,
        bucket as day,
        sum(requests) as requests
    from {{ ref('cagg_request_outcomes_daily') }}
    where {{ in_slices('bucket') }}
    group by tenant_id, bucket
),

matched as (
    select
        tenant_id,
        date_trunc('day', occurred_at, 'UTC') as day,
        count(*) as requests
    from {{ ref('int_requests__outcomes') }}
    where {{ in_slices('occurred_at') }} and episode_id is not null
    group by tenant_id, date_trunc('day', occurred_at, 'UTC')
),

unmatched as (
    select
        tenant_id,
        bucket as day,
        sum(requests) as requests
    from {{ ref('cagg_unmatched_urls_daily') }}
    where {{ in_slices('bucket') }}
    group by tenant_id, bucket
)

select
    tenant_id,
    day,
    requests.requests as in_all,
    matched.requests as in_matched,
    unmatched.requests as in_unmatched
from requests
full join matched using (tenant_id, day)
full join unmatched using (tenant_id, day)
where requests.requests is distinct from coalesce(matched.requests, 0) + coalesce(unmatched.requests, 0)
