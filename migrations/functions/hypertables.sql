-- Hypertables: how they are made and extended, what is kept of them and for how long, on either engine.

-- Which engine the hypertables of this database are made with.
create or replace function timeseries.engine()
returns text
language sql stable
as 'select e.name from timeseries.engine as e';

-- A relation by its name. A name is looked up in a cache (to_regclass, ::regclass), which a session brings up to date when it locks a table, not
-- when it has waited for an advisory lock: what another session has just made under that lock may be missing from it. A
-- query on pg_class sees all that is committed.
create or replace function timeseries.find_relation(schema_name text, relation_name text)
returns regclass
language sql volatile
as $$
    select c.oid::regclass
    from pg_class as c
    inner join pg_namespace as n on c.relnamespace = n.oid
    where n.nspname = schema_name and c.relname = relation_name;
$$;

-- The start of the chunk that holds a time: chunks are laid from 1970-01-01 UTC, whole days long.
create or replace function timeseries.chunk_start(at timestamptz, chunk_interval interval)
returns timestamptz
language sql immutable parallel safe
as $$
    select to_timestamp(
        floor(extract(epoch from at) / extract(epoch from chunk_interval))
        * extract(epoch from chunk_interval)
    );
$$;

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
        if timeseries.find_relation('chunks', chunk_name) is null then
            -- Two writers may meet here: the second waits, then finds the chunk made.
            perform pg_advisory_xact_lock(hashtextextended('timeseries.ensure_chunks ' || hypertable::oid, 0));
            if timeseries.find_relation('chunks', chunk_name) is null then
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

-- Analyse chunks with rows that nobody has analysed yet, of a table or of all of a schema; answers how many. Who reads them
-- before autovacuum comes would take 40,000 new requests for 36, and join them in loops.
create or replace function timeseries.analyze_new_chunks(of_schema text, of_table text default null)
returns integer
language plpgsql
as $$
declare
    chunk regclass;
    analyzed integer := 0;
begin
    for chunk in
        select c.oid::regclass
        from timeseries.hypertables as h
        inner join pg_inherits as i on i.inhparent = timeseries.find_relation(h.schema_name, h.table_name)
        inner join pg_class as c on c.oid = i.inhrelid
        where h.schema_name = of_schema and h.table_name = coalesce(of_table, h.table_name)
            and c.reltuples < 0 and pg_relation_size(c.oid) > 0
    loop
        execute format('analyze %s', chunk);
        analyzed := analyzed + 1;
    end loop;
    return analyzed;
end;
$$;

-- Called in the transaction of whoever makes a table of what may lie in the columnstore: TimescaleDB 2.28.3 was seen to crash
-- on CREATE TABLE AS with columns out of table order from one of its chunks, and with this it did not. Without TimescaleDB
-- it means nothing.
create or replace function timeseries.read_columnstore_safely()
returns void
language sql volatile
as $$
    select set_config('timescaledb.enable_bulk_decompression', 'off', true);
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
    kept jsonb;
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
        kept := timeseries.properties(format('%I.%I', h.schema_name, h.table_name)::regclass);
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
        perform timeseries.set_properties(format('%I.%I', h.schema_name, h.table_name)::regclass, kept);
        foreach statement in array triggers loop
            execute statement;
        end loop;
        perform timeseries.set_lifecycle(
            h.schema_name, h.table_name, h.columnstore_after, h.segment_by, h.order_by, h.retain_for
        );
    end loop;
end;
$$;
