-- Continuous aggregates: TimescaleDB's own, or a table whose window is replaced.

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

-- Bring the hourly and daily aggregates of listener events up to date without dbt or Dagster: for cron, pg_cron, or a
-- person. Reads the slices that have changed since each was last refreshed, and no others.
--     call timeseries.refresh_metrics_daily();
-- Call it outside a transaction. On TimescaleDB the engine's own policies do the same every hour.
create or replace procedure timeseries.refresh_metrics_daily()
language plpgsql
as $$
declare
    aggregate text;
    producers text[];
    invocation constant text := 'timeseries.refresh_metrics_daily ' || gen_random_uuid();
    build ingest.builds;
    span daterange;
begin
    -- The days are made of the hours.
    foreach aggregate in array array['cagg_listener_events_hourly', 'cagg_listener_events_daily'] loop
        select b.inputs into producers
        from ingest.model_builds as b
        where b.model = aggregate and b.seen is not null and b.cluster = ingest.cluster();
        if not found or to_regclass('rollups.' || aggregate) is null then
            raise exception 'rollups.% has never been built here', aggregate
            using hint = 'Build it once: earmark build';
        end if;
        build := ingest.begin_build(aggregate, invocation, producers, false);
        for span in select s from ingest.spans(build.slices) as s loop
            call timeseries.refresh_continuous_aggregate(
                to_regclass('rollups.' || aggregate),
                lower(span)::timestamp at time zone 'UTC', upper(span)::timestamp at time zone 'UTC'
            );
        end loop;
        perform ingest.note(aggregate, array_agg(s.tenant_id), array_agg(s.day)) from ingest.listed(build.slices) as s;
        perform ingest.end_build(aggregate, invocation, producers);
        commit;
    end loop;
end;
$$;
