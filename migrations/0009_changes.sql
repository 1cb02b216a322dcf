-- Changes: which days were changed by whom does not matter, and which of them a model has not seen yet.
--
-- A change is known by its transaction. A model notes the snapshot (pg_snapshot) that it was built with: what that
-- does not show is news to it, however late its transaction commits. No clock and no sequence is compared.

create table if not exists ingest.changes (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    dataset text collate "C" not null,
    day date not null,
    changed_by xid8 not null default pg_current_xact_id(),
    changed_at timestamptz not null default now(),
    primary key (tenant_id, dataset, day)
);
create index if not exists changes_by_transaction on ingest.changes (changed_by);
comment on table ingest.changes is
'One row a tenant, dataset and UTC day that holds rows: the transaction that last changed it. Triggers write it.';

-- Before, days were numbered in ingest.changed_days and settled for all models at once.
insert into ingest.changes (tenant_id, dataset, day)
select d.tenant_id, d.dataset, d.day
from ingest.changed_days as d
on conflict do nothing;
drop table ingest.changed_days;
drop sequence if exists ingest.change_number;

-- Say that days of a dataset have changed. Rows are taken in key order, so that two loads never deadlock.
create or replace function ingest.mark_changed(tenant text, of_dataset text, days date[])
returns integer
language sql
as $$
    with marked as (
        insert into ingest.changes as c (tenant_id, dataset, day)
        select mark_changed.tenant, mark_changed.of_dataset, d.day
        from (select distinct unnest(mark_changed.days) as day) as d
        order by d.day
        on conflict (tenant_id, dataset, day)
        do update set changed_by = pg_current_xact_id(), changed_at = now()
        where c.changed_by <> pg_current_xact_id()
        returning 1
    )
    select count(*)::integer from marked;
$$;

-- Whoever writes a row marks its day: these triggers. The loader marks the days of a file by itself, at once, and
-- says so with the setting earmark.marks_days: per row that costs it next to nothing. (Triggers with transition
-- tables would be simpler; they took a third off the speed of COPY into a partitioned table.)
create or replace function ingest.note_change()
returns trigger
language plpgsql
as $$
declare
    touched record;
    day_of date;
    row_key text;
begin
    foreach touched in array case tg_op when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new] end
    loop
        if tg_argv[0] = 'listener_metrics' then
            day_of := touched.metric_date;
        elsif tg_argv[0] = 'spend' then
            day_of := touched.spend_date;
        else
            day_of := (touched.occurred_at at time zone 'UTC')::date;
        end if;
        -- Rows of one day mostly come together: the last mark of this transaction is remembered.
        row_key := concat_ws(' ', pg_current_xact_id(), tg_argv[0], touched.tenant_id, day_of);
        if current_setting('earmark.last_mark', true) is distinct from row_key then
            perform ingest.mark_changed(touched.tenant_id, tg_argv[0], array[day_of]);
            perform set_config('earmark.last_mark', row_key, true);
        end if;
        -- Models keep one row an order: the other rows of the order may now count otherwise.
        if tg_argv[0] = 'attribution_events' then
            if touched.order_number is not null then
                perform ingest.mark_changed(
                    touched.tenant_id, tg_argv[0],
                    array(
                        select distinct (e.occurred_at at time zone 'UTC')::date
                        from raw.attribution_events as e
                        where e.tenant_id = touched.tenant_id and e.order_number = touched.order_number
                    )
                );
            end if;
        end if;
    end loop;
    return null;
end;
$$;

-- What was dropped from a table at once is not known by row: every day of the dataset has changed.
create or replace function ingest.note_truncate()
returns trigger
language plpgsql
as $$
begin
    update ingest.changes set changed_by = pg_current_xact_id(), changed_at = now() where dataset = tg_argv[0];
    return null;
end;
$$;

-- Reference data may stand behind any row of its tenant.
create or replace function ingest.note_reference_change()
returns trigger
language plpgsql
as $$
declare
    tenant text := case tg_op when 'DELETE' then old.tenant_id else new.tenant_id end;
begin
    if current_setting('earmark.last_mark', true) is distinct from concat_ws(' ', pg_current_xact_id(), tenant) then
        update ingest.changes as c set changed_by = pg_current_xact_id(), changed_at = now()
        where c.tenant_id = tenant and c.changed_by <> pg_current_xact_id();
        perform set_config('earmark.last_mark', concat_ws(' ', pg_current_xact_id(), tenant), true);
    end if;
    return null;
end;
$$;

do $$
declare
    dataset text;
begin
    foreach dataset in array array['listener_events', 'attribution_events', 'listener_metrics', 'spend'] loop
        execute format(
            'create or replace trigger note_change after insert or update or delete on raw.%1$I for each row'
            || ' when (coalesce(current_setting(''earmark.marks_days'', true), '''') <> ''yes'')'
            || ' execute function ingest.note_change(%1$L)', dataset
        );
        execute format(
            'create or replace trigger note_truncate after truncate on raw.%1$I for each statement'
            || ' execute function ingest.note_truncate(%1$L)', dataset
        );
    end loop;
    for dataset in
        select c.relname
        from pg_class as c
        where c.relnamespace = 'raw'::regnamespace and c.relkind = 'r' and c.relname <> 'spend'
            and exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'tenant_id')
            and not exists (
                select from timeseries.hypertables as h where h.schema_name = 'raw' and h.table_name = c.relname
            )
    loop
        execute format(
            'create or replace trigger note_change after insert or update or delete on raw.%1$I for each row'
            || ' when (coalesce(current_setting(''earmark.marks_days'', true), '''') <> ''yes'')'
            || ' execute function ingest.note_reference_change()', dataset
        );
    end loop;
end;
$$;

-- A snapshot means something only in the cluster where it was taken, not in one restored from a dump.
create or replace function ingest.cluster()
returns bigint
language sql stable
as 'select c.system_identifier from pg_control_system() as c';

do $$
begin
    if to_regclass('ingest.model_builds') is null then
        alter table ingest.model_versions rename to model_builds;
    else
        drop table if exists ingest.model_versions;
    end if;
end;
$$;
alter table ingest.model_builds alter column version drop not null;
alter table ingest.model_builds add column if not exists seen pg_snapshot;
alter table ingest.model_builds add column if not exists cluster bigint;
alter table ingest.model_builds add column if not exists stands_on jsonb not null default '{}';
alter table ingest.model_builds add column if not exists invocation_id text;
alter table ingest.model_builds add column if not exists was_whole boolean not null default true;
comment on table ingest.model_builds is
'One row a model that is refreshed by window: the changes that it has seen, and the version of its SQL when it was last built whole.';
comment on column ingest.model_builds.stands_on is
'The tables it read, by name, with the oid that each had: another oid means that the table was replaced.';

create table if not exists ingest.runs (
    invocation_id text primary key,
    taken pg_snapshot not null,
    days jsonb not null,
    horizon date,
    started_at timestamptz not null default now()
);
comment on table ingest.runs is
'One row a dbt invocation of the last days: the changes it started from, and the days that were news to each model.';

-- The days with changes that a snapshot does not show. The index finds them: history costs nothing. The planner, which
-- takes a third of the table for pending, would read all of it.
create or replace function ingest.pending_days(seen pg_snapshot)
returns setof ingest.changes
language sql stable
set enable_seqscan = off
as $$
    select c.*
    from ingest.changes as c
    where c.changed_by >= pg_snapshot_xmin(seen) and not pg_visible_in_snapshot(c.changed_by, seen);
$$;

-- The earlier of two snapshots; null is the earliest. Those of one cluster always hold one another.
create or replace function ingest.earlier(a pg_snapshot, b pg_snapshot)
returns pg_snapshot
language sql immutable
as $$
    select s.snapshot
    from (values (a), (b)) as s (snapshot)
    order by
        pg_snapshot_xmax(s.snapshot) asc nulls first,
        pg_snapshot_xmin(s.snapshot) asc,
        (select count(*) from pg_snapshot_xip(s.snapshot)) desc
    limit 1;
$$;

-- Note what a dbt invocation starts from. Each model's days are fixed now: what is loaded meanwhile is the next
-- invocation's. A day older than what retention has dropped is left alone.
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

-- Note that a model was built, with all that its invocation and the tables it stands on had seen. given: the
-- windows that were asked for, where they were; changes outside of them stay news to the model.
create or replace function ingest.end_build(
    of_model text, of_invocation text, whole boolean, parents text[], relations text[], given daterange[] default null
)
returns void
language plpgsql
as $$
declare
    now_seen pg_snapshot := (select r.taken from ingest.runs as r where r.invocation_id = of_invocation);
    parent text;
    before ingest.model_builds;
begin
    foreach parent in array parents loop
        now_seen := ingest.earlier(
            now_seen,
            (select b.seen from ingest.model_builds as b where b.model = parent and b.cluster = ingest.cluster())
        );
    end loop;
    select b.* into before from ingest.model_builds as b where b.model = of_model and b.cluster = ingest.cluster();
    if before.seen is not null and not whole then
        if given is not null and exists (
            select from ingest.pending_days(before.seen) as p
            where not p.day <@ any(given)
        ) then
            now_seen := before.seen;
        elsif ingest.earlier(now_seen, before.seen)::text = now_seen::text then
            now_seen := before.seen;
        end if;
    end if;
    insert into ingest.model_builds as b (model, seen, cluster, stands_on, invocation_id, was_whole)
    values (
        of_model, now_seen, ingest.cluster(), ingest.oids_of(relations), of_invocation, whole
    )
    on conflict (model) do update
    set seen = excluded.seen, cluster = excluded.cluster, stands_on = excluded.stands_on,
        invocation_id = excluded.invocation_id, was_whole = excluded.was_whole, built_at = now();
end;
$$;

create or replace function ingest.oids_of(relations text[])
returns jsonb
language sql stable
as $$
    select coalesce(jsonb_object_agg(r.name, to_regclass(r.name)::oid::bigint), '{}')
    from unnest(relations) as r (name);
$$;

-- The models whose tables were replaced, or that were never built, or built in another cluster.
create or replace function ingest.unfounded_models()
returns setof text
language sql stable
as $$
    select b.model
    from ingest.model_builds as b
    where
        b.seen is not null
        and (
            b.cluster <> ingest.cluster()
            or b.stands_on <> ingest.oids_of(array(select jsonb_object_keys(b.stands_on)))
        );
$$;

-- The days that wait for a refresh: news to some model, or, before the first build, all of them.
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
);
comment on view ingest.pending_refresh is
'One row a tenant, dataset and UTC day that changed and that some model has not seen yet.';
