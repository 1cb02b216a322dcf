-- Two functions of 0008_engines.sql again: a bucket of a month or week ends by UTC, whatever the session's time zone, and
-- tables with a view in common are put in place one after the other.

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
