-- Days that change without a change of their own: a late request can change what counts on the days after it. The
-- model that finds out (int_requests__outcomes) says so to the models that read it; each refreshes those days too and
-- hands them on to its own readers.

create table if not exists ingest.widened_days (
    model text not null,
    day date not null,
    invocation_id text not null,
    changed_by xid8 not null default pg_current_xact_id(),
    changed_at timestamptz not null default now(),
    primary key (model, day, invocation_id)
);
comment on table ingest.widened_days is
'One row a model, UTC day and dbt invocation in which a model that it reads changed that day beyond the windows of the run; gone when the model has refreshed it.';

-- The days that a model must refresh, in an invocation, on top of what changed: those that were there when it started
-- and those that it made itself. So a model and its tests mean the same days, whatever else runs.
create or replace function ingest.widened_days_of(of_model text, of_invocation text)
returns setof date
language sql stable
as $$
    select distinct w.day
    from ingest.widened_days as w
    inner join ingest.runs as r on r.invocation_id = of_invocation
    where
        w.model = of_model
        and (w.invocation_id = of_invocation or pg_visible_in_snapshot(w.changed_by, r.taken));
$$;

create or replace function ingest.widen(readers text[], days date[], of_invocation text)
returns void
language sql
as $$
    insert into ingest.widened_days (model, day, invocation_id)
    select r.model, d.day, of_invocation
    from unnest(readers) as r (model)
    inner join ingest.model_builds as b on b.model = r.model  -- one that was never built will be built whole
    cross join unnest(days) as d (day)
    order by r.model, d.day
    on conflict do nothing;
$$;

-- A model has been built, whole or for windows: it hands its widened days on and is done with them.
create or replace function ingest.hand_on_widened(
    of_model text, of_invocation text, whole boolean, windows daterange[], readers text[]
)
returns void
language plpgsql
as $$
declare
    done date[] := array(
        select d.day from ingest.widened_days_of(of_model, of_invocation) as d (day)
        where whole or d.day <@ any(windows)
    );
begin
    if cardinality(done) = 0 then
        return;
    end if;
    perform ingest.widen(readers, done, of_invocation);
    delete from ingest.widened_days as w
    using ingest.runs as r
    where
        r.invocation_id = of_invocation and w.model = of_model and w.day = any(done)
        and (w.invocation_id = of_invocation or pg_visible_in_snapshot(w.changed_by, r.taken));
end;
$$;

create or replace view ingest.pending_refresh as
select distinct
    d.tenant_id,
    d.dataset,
    d.day,
    d.changed_by,
    d.changed_at
from (
    select distinct b.seen::text as seen
    from ingest.model_builds as b
    where b.seen is not null and b.cluster = ingest.cluster()
    union all
    select '1:1:'
    where not exists (
        select from ingest.model_builds as b where b.seen is not null and b.cluster = ingest.cluster()
    )
) as s
cross join lateral ingest.pending_days(s.seen::pg_snapshot) as d
where d.day >= coalesce(
    (select max(h.dropped_before) at time zone 'UTC' from timeseries.hypertables as h where h.schema_name = 'raw'),
    '-infinity'
)
union
select
    c.tenant_id,
    c.dataset,
    c.day,
    w.changed_by,
    w.changed_at
from ingest.widened_days as w
inner join ingest.model_builds as b on b.model = w.model
inner join ingest.changes as c on c.day = w.day and c.dataset = 'listener_events';
