-- Engines: what a hypertable and a continuous aggregate are made of. On the engine timescaledb they are the
-- extension's own, on the engine postgres range-partitioned tables. Loading, models and policies call the
-- functions of this schema on both and never ask which one they are on.

create table if not exists timeseries.engine (
    only_row boolean primary key default true check (only_row),
    name text not null check (name in ('postgres', 'timescaledb')),
    function_schema text not null,
    version text not null,
    chosen_at timestamptz not null default now()
);
comment on table timeseries.engine is
'One row: the engine that the hypertables of this database are made with, its version, and the schema of its time_bucket.';
insert into timeseries.engine (name, function_schema, version)
values ('postgres', 'timeseries', current_setting('server_version'))
on conflict do nothing;

create or replace function timeseries.engine()
returns text
language sql stable
as 'select e.name from timeseries.engine as e';

-- Settings of a hypertable: how long rows are kept, and when and how they are put into the columnstore.
-- dropped_before: retention has dropped what is older; nothing older is ever refreshed again.
alter table timeseries.hypertables add column if not exists columnstore_after interval;
alter table timeseries.hypertables add column if not exists segment_by text[] not null default '{}';
alter table timeseries.hypertables add column if not exists order_by text;
alter table timeseries.hypertables add column if not exists retain_for interval;
alter table timeseries.hypertables add column if not exists dropped_before timestamptz;
alter table timeseries.hypertables add column if not exists is_parked boolean not null default false;
comment on column timeseries.hypertables.columnstore_after is
'Chunks older than this go into the columnstore. On plain PostgreSQL there is none: the setting waits for TimescaleDB.';
comment on column timeseries.hypertables.is_parked is
'It was replaced, and stays for the continuous aggregates that still stand on it.';
comment on column timeseries.hypertables.retain_for is 'Chunks whose rows are all older than this are dropped.';

create table if not exists timeseries.continuous_aggregates (
    schema_name text not null,
    table_name text not null,
    bucket interval not null,
    query text not null,
    options jsonb not null default '{}',
    primary key (schema_name, table_name)
);
comment on table timeseries.continuous_aggregates is
'One row a continuous aggregate: the length of its buckets and its query, whose window is marked by comments.';

-- Make a hypertable unless it is there. definition is what stands between the brackets of CREATE TABLE.
create or replace function timeseries.create_hypertable(
    schema_name text, table_name text, time_column text, chunk_interval interval, definition text
)
returns regclass
language plpgsql
as $$
declare
    made regclass;
begin
    if timeseries.engine() = 'timescaledb' then
        execute format('create table if not exists %I.%I (%s)', schema_name, table_name, definition);
        made := format('%I.%I', schema_name, table_name)::regclass;
        execute format(
            'select %1$I.create_hypertable(%2$L::regclass, %1$I.by_range(%3$L, %4$L::interval),'
            || ' create_default_indexes => false, if_not_exists => true)',
            (select e.function_schema from timeseries.engine as e), made, time_column, chunk_interval
        );
    else
        execute format(
            'create table if not exists %I.%I (%s) partition by range (%I)', schema_name, table_name, definition,
            time_column
        );
        made := format('%I.%I', schema_name, table_name)::regclass;
    end if;
    insert into timeseries.hypertables as h (schema_name, table_name, time_column, chunk_interval)
    values (create_hypertable.schema_name, create_hypertable.table_name, create_hypertable.time_column,
            create_hypertable.chunk_interval)
    on conflict on constraint hypertables_pkey
    do update set time_column = excluded.time_column, chunk_interval = excluded.chunk_interval;
    return made;
end;
$$;

-- Make sure that every chunk that holds a time of [starts_at, ends_at) exists; answers how many were made.
-- A chunk is made beside its table and then attached: attaching waits for no reader and no writer.
create or replace function timeseries.ensure_chunks(
    hypertable regclass, starts_at timestamptz, ends_at timestamptz
)
returns integer
language plpgsql
as $$
declare
    h timeseries.hypertables;
    time_type text;
    chunk_from timestamptz;
    chunk_to timestamptz;
    chunk_name text;
    made integer := 0;
begin
    select t.* into h
    from timeseries.hypertables as t
    inner join pg_class as c on c.relname = t.table_name
    inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname = t.schema_name
    where c.oid = hypertable;
    if not found then
        raise exception '% is not a hypertable: make it with timeseries.create_hypertable()', hypertable;
    end if;
    if timeseries.engine() = 'timescaledb' then
        return 0;  -- it makes them itself
    end if;

    select format_type(a.atttypid, null) into time_type
    from pg_attribute as a
    where a.attrelid = hypertable and a.attname = h.time_column;

    chunk_from := timeseries.chunk_start(starts_at, h.chunk_interval);
    while chunk_from < ends_at loop
        chunk_to := chunk_from + h.chunk_interval;
        chunk_name := format(
            '%s__%s__%s', h.schema_name, h.table_name, to_char(chunk_from at time zone 'UTC', 'YYYYMMDD')
        );
        if to_regclass(format('chunks.%I', chunk_name)) is null then
            -- Two writers may meet here: the second waits, then finds the chunk made.
            perform pg_advisory_xact_lock(hashtextextended('timeseries.ensure_chunks ' || hypertable::text, 0));
            if to_regclass(format('chunks.%I', chunk_name)) is null then
                execute format(
                    'create table chunks.%I (like %s including defaults including constraints including storage)',
                    chunk_name, hypertable
                );
                execute format(
                    'alter table %s attach partition chunks.%I for values from (%L) to (%L)',
                    hypertable, chunk_name,
                    case when time_type = 'date' then (chunk_from at time zone 'UTC')::date::text
                        else chunk_from::text end,
                    case when time_type = 'date' then (chunk_to at time zone 'UTC')::date::text
                        else chunk_to::text end
                );
                made := made + 1;
            end if;
        end if;
        chunk_from := chunk_to;
    end loop;
    return made;
end;
$$;

-- The continuous aggregates of TimescaleDB that read a table or another aggregate.
create or replace function timeseries.aggregates_on(relation regclass)
returns setof regclass
language plpgsql stable
as $$
begin
    if timeseries.engine() = 'timescaledb' then
        -- Names are compared, never cast: others come and go meanwhile.
        return query
        select c.oid::regclass
        from timescaledb_information.continuous_aggregates as a
        inner join pg_namespace as n on n.nspname = a.view_schema
        inner join pg_class as c on c.relnamespace = n.oid and c.relname = a.view_name
        where (a.hypertable_schema, a.hypertable_name) in (
            select t.nspname, r.relname
            from pg_class as r
            inner join pg_namespace as t on r.relnamespace = t.oid
            where r.oid = relation
            union all
            select p.materialization_hypertable_schema, p.materialization_hypertable_name
            from timescaledb_information.continuous_aggregates as p
            inner join pg_namespace as t on t.nspname = p.view_schema
            inner join pg_class as r on r.relnamespace = t.oid and r.relname = p.view_name
            where r.oid = relation
        );
    end if;
end;
$$;

-- Drop a table, view, hypertable or continuous aggregate, with the views on it, and what is noted of it.
create or replace function timeseries.drop_relation(schema_name text, relation_name text)
returns void
language plpgsql
as $$
declare
    relation regclass := to_regclass(format('%I.%I', schema_name, relation_name));
    kind "char" := (select c.relkind from pg_class as c where c.oid = relation);
    is_aggregate boolean := false;
begin
    delete from timeseries.hypertables as h
    where h.schema_name = drop_relation.schema_name and h.table_name = relation_name;
    delete from timeseries.continuous_aggregates as a
    where a.schema_name = drop_relation.schema_name and a.table_name = relation_name;
    if relation is null then
        return;
    end if;
    if kind = 'v' and timeseries.engine() = 'timescaledb' then
        is_aggregate := exists (
            select from timescaledb_information.continuous_aggregates as a
            where a.view_schema = schema_name and a.view_name = relation_name
        );
    end if;
    execute format(
        'drop %s %s cascade',
        case when is_aggregate or kind = 'm' then 'materialized view' when kind = 'v' then 'view' else 'table' end,
        relation
    );
end;
$$;

-- Put a freshly built table or continuous aggregate in the place of another (or of none). The views that stand on
-- the old one are made again on the new one, with their options, grants and comments; one that no longer fits is
-- left out with a warning. Continuous aggregates of TimescaleDB cannot be moved: they go on standing on the old
-- table, under another name, until they are replaced themselves. An aggregate is parked as well: dropping it locks
-- the table that it reads, which must not wait in the middle of a transaction. drop_parked() clears up.
create or replace function timeseries.replace_relation(schema_name text, new_name text, relation_name text)
returns void
language plpgsql
as $$
declare
    live regclass := to_regclass(format('%I.%I', schema_name, relation_name));
    fresh regclass := format('%I.%I', schema_name, new_name)::regclass;
    live_kind "char" := (select c.relkind from pg_class as c where c.oid = live);
    rename_kind text;
    parked text;
    views jsonb := '[]';
    item jsonb;
    grantee jsonb;
    note jsonb;
    chunk record;
begin
    -- Two tables may have a view in common: one after the other, or each finds the view gone that the other is making.
    perform pg_advisory_xact_lock(hashtextextended('timeseries.replace_relation', 0));
    if live is not null then
        with recursive standing as (
            select r.ev_class as oid, 1 as depth
            from pg_depend as d
            inner join pg_rewrite as r on d.objid = r.oid
            where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = live
                and r.ev_class <> live
            union
            select r.ev_class, s.depth + 1
            from standing as s
            inner join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid
            inner join pg_rewrite as r on d.objid = r.oid
            where d.classid = 'pg_rewrite'::regclass and r.ev_class <> s.oid
                and s.oid not in (select a from timeseries.aggregates_on(live) as a)
        ),

        ordered as (
            select s.oid, max(s.depth) as depth
            from standing as s
            inner join pg_class as c on c.oid = s.oid
            where c.relnamespace::regnamespace::text <> '_timescaledb_internal'
                and s.oid not in (select a from timeseries.aggregates_on(live) as a)
            group by s.oid
        )

        select coalesce(jsonb_agg(jsonb_build_object(
            'name', format('%I.%I', n.nspname, c.relname),
            'kind', c.relkind,
            'definition', pg_get_viewdef(c.oid),
            'owner', c.relowner::regrole::text,
            'options', array_to_string(c.reloptions, ', '),
            'grants', (
                select jsonb_agg(jsonb_build_object(
                    'to', case when g.grantee = 0 then 'public' else g.grantee::regrole::text end,
                    'privilege', g.privilege_type, 'grantable', g.is_grantable
                ))
                from aclexplode(c.relacl) as g
                where g.grantee <> c.relowner
            ),
            'comments', (
                select jsonb_agg(jsonb_build_object('column', a.attname, 'text', t.description))
                from pg_description as t
                left join pg_attribute as a on t.objsubid > 0 and a.attrelid = c.oid and t.objsubid = a.attnum
                where t.classoid = 'pg_class'::regclass and t.objoid = c.oid
            )
        ) order by o.depth), '[]')
        into views
        from ordered as o
        inner join pg_class as c on o.oid = c.oid
        inner join pg_namespace as n on c.relnamespace = n.oid;

        for item in select * from jsonb_array_elements(views) loop
            if item ->> 'kind' <> 'v' then
                raise exception '% stands on %.% and is no view: drop it before the rebuild',
                    item ->> 'name', schema_name, relation_name;
            end if;
        end loop;
        if exists (select from timeseries.aggregates_on(live))
            or (live_kind = 'v' and exists (
                select from timeseries.continuous_aggregates as a
                where a.schema_name = replace_relation.schema_name and a.table_name = relation_name
            ))
        then
            for item in select * from jsonb_array_elements(views) loop
                execute format('drop view if exists %s cascade', item ->> 'name');
            end loop;
            parked := format('%s__%s', left(relation_name, 50), live::oid);
            if live_kind = 'v' then
                execute format('alter materialized view %I.%I rename to %I', schema_name, relation_name, parked);
            else
                execute format('alter table %I.%I rename to %I', schema_name, relation_name, parked);
            end if;
            update timeseries.hypertables as h set table_name = parked, is_parked = true
            where h.schema_name = replace_relation.schema_name and h.table_name = relation_name;
            update timeseries.continuous_aggregates as a set table_name = parked
            where a.schema_name = replace_relation.schema_name and a.table_name = relation_name;
        else
            perform timeseries.drop_relation(schema_name, relation_name);
        end if;
    end if;

    rename_kind := case (select c.relkind from pg_class as c where c.oid = fresh) when 'v' then 'materialized view'
        else 'table' end;
    execute format('alter %s %I.%I rename to %I', rename_kind, schema_name, new_name, relation_name);
    for chunk in
        select c.relname
        from pg_inherits as i
        inner join pg_class as c on c.oid = i.inhrelid
        where i.inhparent = fresh and c.relnamespace::regnamespace::text = 'chunks'
    loop
        execute format(
            'alter table chunks.%I rename to %I', chunk.relname,
            format('%s__%s__', schema_name, relation_name) || right(chunk.relname, 8)
        );
    end loop;
    update timeseries.hypertables as h set table_name = relation_name
    where h.schema_name = replace_relation.schema_name and h.table_name = new_name;
    update timeseries.continuous_aggregates as a set table_name = relation_name
    where a.schema_name = replace_relation.schema_name and a.table_name = new_name;

    for item in select * from jsonb_array_elements(views) loop
        begin
            execute format(
                'create view %s %s as %s', item ->> 'name',
                coalesce('with (' || (item ->> 'options') || ')', ''), item ->> 'definition'
            );
            execute format('alter view %s owner to %s', item ->> 'name', item ->> 'owner');
            for grantee in
                select * from jsonb_array_elements(coalesce(nullif(item -> 'grants', 'null'), '[]'))
            loop
                execute format(
                    'grant %s on %s to %s%s', grantee ->> 'privilege', item ->> 'name', grantee ->> 'to',
                    case when (grantee ->> 'grantable')::boolean then ' with grant option' else '' end
                );
            end loop;
            for note in
                select * from jsonb_array_elements(coalesce(nullif(item -> 'comments', 'null'), '[]'))
            loop
                if note ->> 'column' is null then
                    execute format('comment on view %s is %L', item ->> 'name', note ->> 'text');
                else
                    execute format(
                        'comment on column %s.%I is %L', item ->> 'name', note ->> 'column', note ->> 'text'
                    );
                end if;
            end loop;
        exception when undefined_column or undefined_table or undefined_function or datatype_mismatch then
            raise warning 'view % no longer fits %.% and was dropped: %',
                item ->> 'name', schema_name, relation_name, sqlerrm;
        end;
    end loop;
end;
$$;
drop function if exists timeseries.swap_hypertable(text, text, text);

-- Drop what was replaced and parked, and what nothing stands on any more. In a transaction of its own: it waits for
-- the readers of the tables below.
create or replace function timeseries.drop_parked()
returns void
language plpgsql
as $$
declare
    parked timeseries.hypertables;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('timeseries.drop_parked', 0)) then
        return;  -- somebody is at it
    end if;
    loop
        select h.* into parked
        from timeseries.hypertables as h
        where h.is_parked
            and not exists (
                select from timeseries.aggregates_on(to_regclass(format('%I.%I', h.schema_name, h.table_name)))
            )
        limit 1;
        exit when not found;
        perform timeseries.drop_relation(parked.schema_name, parked.table_name);
    end loop;
end;
$$;

-- Make an empty continuous aggregate. query holds its window as a comment,
--     where /*window:downloads.occurred_at:timestamptz*/ true /*:window*/
-- which stays true for TimescaleDB, that finds out itself what to read, and becomes a condition elsewhere.
create or replace function timeseries.create_continuous_aggregate(
    schema_name text, table_name text, time_column text, bucket interval, chunk_interval interval,
    query text, options jsonb default '{}'
)
returns regclass
language plpgsql
as $$
declare
    definition text;
    made regclass;
begin
    if timeseries.engine() = 'timescaledb' then
        execute format(
            'create materialized view %I.%I with (timescaledb.continuous, timescaledb.materialized_only = %s,'
            || ' timescaledb.chunk_interval = %L) as %s with no data',
            schema_name, table_name, not coalesce((options ->> 'real_time')::boolean, false), chunk_interval, query
        );
        made := format('%I.%I', schema_name, table_name)::regclass;
        insert into timeseries.hypertables as h (schema_name, table_name, time_column, chunk_interval)
        values (create_continuous_aggregate.schema_name, create_continuous_aggregate.table_name,
                create_continuous_aggregate.time_column, create_continuous_aggregate.chunk_interval);
    else
        execute format('create temporary table shape_of_aggregate on commit drop as %s with no data', query);
        select string_agg(
            format(
                '%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                case when a.attcollation <> t.typcollation then ' collate ' || quote_ident(l.collname) else '' end
            ), ', ' order by a.attnum
        )
        into definition
        from pg_attribute as a
        inner join pg_type as t on a.atttypid = t.oid
        left join pg_collation as l on a.attcollation = l.oid
        where a.attrelid = 'pg_temp.shape_of_aggregate'::regclass and a.attnum > 0;
        drop table shape_of_aggregate;
        made := timeseries.create_hypertable(schema_name, table_name, time_column, chunk_interval, definition);
    end if;
    insert into timeseries.continuous_aggregates (schema_name, table_name, bucket, query, options)
    values (schema_name, table_name, bucket, query, options);
    return made;
end;
$$;

-- Bring the buckets of [starts_at, ends_at) up to date, whole buckets always; null: from the first, to the last.
-- Call it outside a transaction: TimescaleDB insists.
create or replace procedure timeseries.refresh_continuous_aggregate(
    aggregate regclass, starts_at timestamptz, ends_at timestamptz
)
language plpgsql
as $$
declare
    a record;
    bucket_from timestamptz;
    bucket_to timestamptz;
    window_query text;
begin
    if starts_at >= ends_at then
        raise exception 'the window starts at % and ends at %: the end must come after the start', starts_at, ends_at;
    end if;
    select c.bucket, c.query, h.time_column, h.chunk_interval, format_type(t.atttypid, null) as time_type into a
    from timeseries.continuous_aggregates as c
    inner join timeseries.hypertables as h on h.schema_name = c.schema_name and h.table_name = c.table_name
    inner join pg_class as r on r.oid = aggregate and r.relname = c.table_name
    inner join pg_namespace as n on n.oid = r.relnamespace and n.nspname = c.schema_name
    inner join pg_attribute as t on t.attrelid = r.oid and t.attname = h.time_column;
    if not found then
        raise exception '% is no continuous aggregate', aggregate;
    end if;
    bucket_from := timeseries.time_bucket(a.bucket, starts_at);
    bucket_to := timeseries.time_bucket(a.bucket, ends_at);
    if bucket_to < ends_at then
        -- Months and days are those of UTC, whatever the session's time zone.
        bucket_to := (bucket_to at time zone 'UTC' + a.bucket) at time zone 'UTC';
    end if;

    if timeseries.engine() = 'timescaledb' then
        -- As a statement of its own, not by EXECUTE: only so may it commit. Found by the search path for that reason.
        call refresh_continuous_aggregate(aggregate, bucket_from, bucket_to);
        return;
    end if;

    perform pg_advisory_xact_lock(hashtextextended('timeseries.refresh ' || aggregate::text, 0));
    window_query := regexp_replace(
        a.query, '/\*window:([^:*]+):timestamptz\*/.*?/\*:window\*/', '(\1 >= $1 and \1 < $2)', 'g'
    );
    window_query := regexp_replace(
        window_query, '/\*window:([^:*]+):date\*/.*?/\*:window\*/',
        '(\1 >= ($1 at time zone ''UTC'')::date and \1 < ($2 at time zone ''UTC'')::date)', 'g'
    );
    execute format('create temporary table aggregated (like %s)', aggregate);
    execute 'insert into pg_temp.aggregated ' || window_query
    using coalesce(bucket_from, '-infinity'), coalesce(bucket_to, 'infinity');
    execute format(
        'select timeseries.ensure_chunks(%L, n.starts_at, n.starts_at + interval ''1 microsecond'')'
        || ' from (select distinct timeseries.chunk_start(%s, %L) as starts_at from pg_temp.aggregated) as n'
        || ' order by n.starts_at',
        aggregate,
        format(case when a.time_type = 'date' then '%I::timestamp at time zone ''UTC''' else '%I' end, a.time_column),
        a.chunk_interval
    );
    execute format(
        'delete from %s where %I >= $1 and %I < $2', aggregate, a.time_column, a.time_column
    ) using coalesce(bucket_from, '-infinity'), coalesce(bucket_to, 'infinity');
    execute format('insert into %s select * from pg_temp.aggregated', aggregate);
    drop table aggregated;
end;
$$;

-- Let the engine itself refresh an aggregate now and then, for when nobody else does (option refresh_every). Plain
-- PostgreSQL has nothing that could: there timeseries.refresh_metrics_daily() can be called by any scheduler.
create or replace function timeseries.set_refresh_policy(schema_name text, table_name text)
returns void
language plpgsql
as $$
declare
    every interval := (
        select (a.options ->> 'refresh_every')::interval from timeseries.continuous_aggregates as a
        where a.schema_name = set_refresh_policy.schema_name and a.table_name = set_refresh_policy.table_name
    );
begin
    if timeseries.engine() = 'timescaledb' and every is not null then
        execute format(
            'select %I.add_continuous_aggregate_policy(%L::regclass, start_offset => null, end_offset => null,'
            || ' schedule_interval => %L::interval, initial_start => now() + %L::interval)',
            (select e.function_schema from timeseries.engine as e), format('%I.%I', schema_name, table_name),
            every, every
        );
    end if;
end;
$$;

-- Statistics for the planner; TimescaleDB's aggregates are views on a table that has them.
create or replace function timeseries.analyze_aggregate(aggregate regclass)
returns void
language plpgsql
as $$
declare
    analyzed text := aggregate::text;
begin
    if timeseries.engine() = 'timescaledb' then
        select format('%I.%I', a.materialization_hypertable_schema, a.materialization_hypertable_name) into analyzed
        from timescaledb_information.continuous_aggregates as a
        inner join pg_namespace as n on n.nspname = a.view_schema
        inner join pg_class as r on r.oid = aggregate and r.relnamespace = n.oid and r.relname = a.view_name;
    end if;
    execute 'analyze ' || analyzed;
end;
$$;

-- Say how long rows of a hypertable are kept and when they go into the columnstore; null: for ever, never.
create or replace function timeseries.set_lifecycle(
    schema_name text, table_name text, columnstore_after interval, segment_by text[], order_by text,
    retain_for interval
)
returns void
language plpgsql
as $$
declare
    before timeseries.hypertables;
    hypertable text := format('%I.%I', schema_name, table_name);
    is_aggregate boolean;
    functions text := (select e.function_schema from timeseries.engine as e);
begin
    select h.* into before from timeseries.hypertables as h
    where h.schema_name = set_lifecycle.schema_name and h.table_name = set_lifecycle.table_name;
    if not found then
        raise exception '% is not a hypertable: make it with timeseries.create_hypertable()', hypertable;
    end if;
    update timeseries.hypertables as h
    set columnstore_after = set_lifecycle.columnstore_after, retain_for = set_lifecycle.retain_for,
        segment_by = coalesce(set_lifecycle.segment_by, '{}'), order_by = set_lifecycle.order_by
    where h.schema_name = set_lifecycle.schema_name and h.table_name = set_lifecycle.table_name;
    if timeseries.engine() <> 'timescaledb' then
        return;
    end if;

    is_aggregate := (select c.relkind = 'v' from pg_class as c where c.oid = hypertable::regclass);
    if (before.columnstore_after, before.segment_by, before.order_by)
        is distinct from (columnstore_after, coalesce(segment_by, '{}'), order_by)
        or not exists (
            select from timescaledb_information.jobs as j
            where j.proc_name in ('policy_compression', 'policy_columnstore')
                and j.hypertable_schema = set_lifecycle.schema_name and j.hypertable_name = set_lifecycle.table_name
        )
    then
        execute format('call %I.remove_columnstore_policy(%L::regclass, if_exists => true)', functions, hypertable);
        if columnstore_after is not null then
            execute format(
                'alter %s %s set (timescaledb.enable_columnstore, timescaledb.segmentby = %L, timescaledb.orderby = %L)',
                case when is_aggregate then 'materialized view' else 'table' end, hypertable,
                array_to_string(coalesce(segment_by, '{}'), ', '),
                coalesce(order_by, quote_ident(before.time_column) || ' desc')
            );
            execute format(
                'call %I.add_columnstore_policy(%L::regclass, after => %L::interval)', functions, hypertable,
                columnstore_after
            );
        end if;
    end if;
end;
$$;

-- Drop what retention says, on both engines alike: whole chunks whose rows are all older. Answers how many.
create or replace function timeseries.apply_retention(at timestamptz default now())
returns integer
language plpgsql
as $$
declare
    h timeseries.hypertables;
    chunk record;
    keep_from timestamptz;
    dropped integer := 0;
    n integer;
begin
    for h in select * from timeseries.hypertables as t where t.retain_for is not null loop
        -- Whole chunks and whole days, the same on every engine.
        keep_from := timeseries.chunk_start(at - h.retain_for, h.chunk_interval);
        n := 0;
        if timeseries.engine() = 'timescaledb' then
            execute format(
                'select count(*) from %I.drop_chunks(%L::regclass, older_than => %L::timestamptz)',
                (select e.function_schema from timeseries.engine as e), format('%I.%I', h.schema_name, h.table_name),
                keep_from
            ) into n;
        else
            for chunk in
                select c.relname
                from pg_inherits as i
                inner join pg_class as c on c.oid = i.inhrelid
                where i.inhparent = format('%I.%I', h.schema_name, h.table_name)::regclass
                    and right(c.relname, 8) < to_char(keep_from at time zone 'UTC', 'YYYYMMDD')
            loop
                execute format('drop table chunks.%I', chunk.relname);
                n := n + 1;
            end loop;
        end if;
        if n > 0 then
            update timeseries.hypertables as t set dropped_before = greatest(t.dropped_before, keep_from)
            where t.schema_name = h.schema_name and t.table_name = h.table_name;
        end if;
        dropped := dropped + n;
    end loop;
    return dropped;
end;
$$;

-- What has to be done now and then, on every engine: chunks ahead of time, and retention.
-- Retention is not applied with every migration and load, only here: drop_old says so. Answers how many chunks went.
create or replace function timeseries.maintain(drop_old boolean default true, days_ahead integer default 7)
returns integer
language plpgsql
as $$
begin
    perform timeseries.ensure_chunks(
        format('%I.%I', h.schema_name, h.table_name)::regclass, now(), now() + make_interval(days => days_ahead)
    )
    from timeseries.hypertables as h
    where h.schema_name = 'raw';
    perform timeseries.drop_parked();
    return case when drop_old then timeseries.apply_retention() else 0 end;
end;
$$;

-- Make the empty hypertables of this database with another engine. What models built on them is dropped: the next
-- build makes it again. With rows in the raw tables it refuses.
create or replace function timeseries.use_engine(wanted text, functions text, engine_version text)
returns void
language plpgsql
as $$
declare
    h timeseries.hypertables;
    holds_rows boolean;
    old_name text;
    triggers text[];
    statement text;
    told text;
begin
    if wanted = timeseries.engine() then
        update timeseries.engine set function_schema = functions, version = engine_version
        where (function_schema, version) is distinct from (functions, engine_version);
        return;
    end if;
    for h in select * from timeseries.hypertables as t where t.schema_name = 'raw' order by t.table_name loop
        execute format('select exists (select from %I.%I)', h.schema_name, h.table_name) into holds_rows;
        if holds_rows then
            raise exception '%.% holds rows that were loaded with the engine %', h.schema_name, h.table_name,
                timeseries.engine()
            using errcode = 'object_not_in_prerequisite_state';
        end if;
    end loop;
    -- Aggregates first: TimescaleDB does not drop a table from under one that a view stands on.
    for h in
        select t.*
        from timeseries.hypertables as t
        left join timeseries.continuous_aggregates as a using (schema_name, table_name)
        where t.schema_name <> 'raw'
        order by a.table_name is null
    loop
        perform timeseries.drop_relation(h.schema_name, h.table_name);
    end loop;
    update timeseries.engine
    set name = wanted, function_schema = functions, version = engine_version, chosen_at = now();
    for h in select * from timeseries.hypertables as t where t.schema_name = 'raw' order by t.table_name loop
        old_name := h.table_name || '__old';
        told := obj_description(format('%I.%I', h.schema_name, h.table_name)::regclass, 'pg_class');
        select coalesce(array_agg(pg_get_triggerdef(t.oid)), '{}') into triggers
        from pg_trigger as t
        where t.tgrelid = format('%I.%I', h.schema_name, h.table_name)::regclass and not t.tgisinternal
            and t.tgname not like 'ts_%';
        execute format('alter table %I.%I rename to %I', h.schema_name, h.table_name, old_name);
        perform timeseries.create_hypertable(
            h.schema_name, h.table_name, h.time_column, h.chunk_interval,
            format('like %I.%I including all', h.schema_name, old_name)
        );
        execute format('drop table %I.%I cascade', h.schema_name, old_name);
        if told is not null then
            execute format('comment on table %I.%I is %L', h.schema_name, h.table_name, told);
        end if;
        foreach statement in array triggers loop
            execute statement;
        end loop;
        perform timeseries.set_lifecycle(
            h.schema_name, h.table_name, h.columnstore_after, h.segment_by, h.order_by, h.retain_for
        );
    end loop;
end;
$$;

-- Listener events are kept two years; after a month, when hardly a row comes late, they go into the columnstore.
select timeseries.set_lifecycle(
    'raw', 'listener_events', interval '30 days', array['tenant_id'], 'occurred_at desc', interval '2 years'
);
select timeseries.set_lifecycle(
    'raw', 'attribution_events', interval '90 days', array['tenant_id'], 'occurred_at desc', null
);
