-- Hypertables: tables cut into chunks by event time. Everything that is cut by time, raw tables and
-- dbt models alike, is made and extended by the functions here, so that an engine is chosen in one place.
-- On plain PostgreSQL a hypertable is a range-partitioned table; a chunk is a partition in schema chunks.

create table if not exists timeseries.hypertables (
    schema_name text not null,
    table_name text not null,
    time_column text not null,
    chunk_interval interval not null check (chunk_interval >= interval '1 day'),
    created_at timestamptz not null default now(),
    primary key (schema_name, table_name)
);
comment on table timeseries.hypertables is 'One row a hypertable: its time column and the length of a chunk.';

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
begin
    execute format(
        'create table if not exists %I.%I (%s) partition by range (%I)', schema_name, table_name, definition, time_column
    );
    insert into timeseries.hypertables as h (schema_name, table_name, time_column, chunk_interval)
    values (create_hypertable.schema_name, create_hypertable.table_name, create_hypertable.time_column,
            create_hypertable.chunk_interval)
    on conflict on constraint hypertables_pkey
    do update set time_column = excluded.time_column, chunk_interval = excluded.chunk_interval;
    return format('%I.%I', schema_name, table_name)::regclass;
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

-- Put a freshly built hypertable in the place of another (or of none): its chunks take the new name along.
create or replace function timeseries.swap_hypertable(schema_name text, new_table text, table_name text)
returns void
language plpgsql
as $$
declare
    chunk record;
    old_prefix text := format('%s__%s__', schema_name, new_table);
begin
    execute format('drop table if exists %I.%I', schema_name, table_name);
    execute format('alter table %I.%I rename to %I', schema_name, new_table, table_name);
    for chunk in
        select c.relname
        from pg_inherits as i
        inner join pg_class as c on c.oid = i.inhrelid
        where i.inhparent = format('%I.%I', schema_name, table_name)::regclass
    loop
        execute format(
            'alter table chunks.%I rename to %I', chunk.relname,
            format('%s__%s__', schema_name, table_name) || substr(chunk.relname, length(old_prefix) + 1)
        );
    end loop;
    delete from timeseries.hypertables as h
    where h.schema_name = swap_hypertable.schema_name and h.table_name = swap_hypertable.table_name;
    update timeseries.hypertables as h
    set table_name = swap_hypertable.table_name
    where h.schema_name = swap_hypertable.schema_name and h.table_name = swap_hypertable.new_table;
end;
$$;
