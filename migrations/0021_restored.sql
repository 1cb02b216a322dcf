-- Transactions are numbered anew in another cluster: in one that a dump was restored into, the days of the dump bear
-- numbers that are yet to come there, and would stay news to every model until then. Such days are older than all:
-- each model is built whole there once (ingest.unfounded_models).

create or replace function ingest.settle_restored_changes()
returns void
language sql
as $$
    update ingest.changes set changed_by = '3'
    where changed_by >= pg_snapshot_xmax(pg_current_snapshot());
    delete from ingest.widened_days
    where changed_by >= pg_snapshot_xmax(pg_current_snapshot());
$$;

-- As in 0009_changes.sql, but what a dump brought along is settled first.
create or replace function ingest.begin_run(of_invocation text)
returns void
language plpgsql
as $$
declare
    drop_line date := (
        select (max(h.dropped_before) at time zone 'UTC')::date from timeseries.hypertables as h
        where h.schema_name = 'raw'
    );
begin
    perform ingest.settle_restored_changes();
    delete from ingest.runs where started_at < now() - interval '7 days';
    insert into ingest.runs (invocation_id, taken, horizon, days)
    select
        of_invocation,
        pg_current_snapshot(),
        drop_line,
        coalesce((
            select jsonb_object_agg(b.model, d.days)
            from (
                select s.seen, coalesce(jsonb_agg(distinct p.day order by p.day) filter (where p.day is not null), '[]') as days
                from (
                    select distinct m.seen::text as seen
                    from ingest.model_builds as m
                    where m.seen is not null and m.cluster = ingest.cluster()
                ) as s
                left join lateral (
                    select q.day
                    from ingest.pending_days(s.seen::pg_snapshot) as q
                    where q.day >= coalesce(drop_line, '-infinity')
                ) as p on true
                group by s.seen
            ) as d
            inner join ingest.model_builds as b on b.seen::text = d.seen and b.cluster = ingest.cluster()
        ), '{}')
    on conflict (invocation_id) do nothing;
end;
$$;
