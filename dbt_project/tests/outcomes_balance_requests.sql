-- Every request ends in exactly one outcome: per tenant, UTC day and source there are as many outcomes as requests.
-- A day that is loaded while it is refreshed is left to the refresh that its load asks for.
{{ config(meta={'dagster': {'ref': {'name': 'int_requests__outcomes'}}}) }}
with requests as (
    select
        tenant_id,
        source,
        (occurred_at at time zone 'UTC')::date as day,
        count(*) as rows_in
    from {{ ref('stg_raw__listener_events') }}
    where {{ in_slices('occurred_at') }} and event_type in ('request', 'download')
    group by tenant_id, source, (occurred_at at time zone 'UTC')::date
),

outcomes as (
    select
        tenant_id,
        source,
        (occurred_at at time zone 'UTC')::date as day,
        count(*) as rows_out
    from {{ ref('int_requests__outcomes') }}
    where {{ in_slices('occurred_at') }}
    group by tenant_id, source, (occurred_at at time zone 'UTC')::date
),

unbalanced as (
    select
        tenant_id,
        source,
        day,
        requests.rows_in,
        outcomes.rows_out
    from requests
    full join outcomes using (tenant_id, source, day)
    where requests.rows_in is distinct from outcomes.rows_out
)

select *
from unbalanced
where not exists (
    select 1
    from {{ source('ingest', 'changes') }} as changes
    inner join {{ source('ingest', 'builds') }} as builds
        on builds.model = 'int_requests__outcomes' and builds.invocation_id = '{{ invocation_id }}'
    where
        changes.producer = 'raw.listener_events'
        and changes.tenant_id in ('', unbalanced.tenant_id)
        and changes.day in ('-infinity', unbalanced.day)
        and not pg_visible_in_snapshot(changes.changed_by, builds.taken)
)
