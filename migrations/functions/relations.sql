-- Relations that are dropped and put in place of others: what stands on them, and what people and tools have set on them, stays.

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

-- The views that stand on a relation, and on one another: the nearest have depth 1. A continuous aggregate of TimescaleDB
-- is none of them, nor is what stands on it.
create or replace function timeseries.views_on(relation regclass)
returns table (view_id oid, depth integer)
language sql volatile
as $$
    with recursive standing as (
        select r.ev_class as oid, 1 as depth
        from pg_depend as d
        inner join pg_rewrite as r on d.objid = r.oid
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = relation
            and r.ev_class <> relation
        union
        select r.ev_class, s.depth + 1
        from standing as s
        inner join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid
        inner join pg_rewrite as r on d.objid = r.oid
        where d.classid = 'pg_rewrite'::regclass and r.ev_class <> s.oid
            and s.oid not in (select a from timeseries.aggregates_on(relation) as a)
    )

    select s.oid, max(s.depth)
    from standing as s
    inner join pg_class as c on c.oid = s.oid
    where c.relnamespace::regnamespace::text <> '_timescaledb_internal'
        and s.oid not in (select a from timeseries.aggregates_on(relation) as a)
    group by s.oid;
$$;

-- What people and tools set on a relation, and a relation that takes its place must have too: owner, grants (also on
-- columns), comments, the options of a view, row policies, replica identity, statistics targets.
create or replace function timeseries.properties(relation regclass)
returns jsonb
language sql volatile
as $$
    select jsonb_build_object(
        'owner', c.relowner::regrole::text,
        'options', case when c.relkind = 'v' then array_to_string(c.reloptions, ', ') end,
        'row_security', c.relrowsecurity,
        'force_row_security', c.relforcerowsecurity,
        'replica_identity', c.relreplident,
        'replica_index', (
            select jsonb_agg(a.attname order by k.place)
            from pg_index as i
            cross join lateral unnest(i.indkey::smallint[]) with ordinality as k (attnum, place)
            inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = k.attnum
            where i.indrelid = c.oid and i.indisreplident
        ),
        'grants', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'to', case when g.grantee = 0 then 'public' else g.grantee::regrole::text end,
                'privilege', g.privilege_type, 'grantable', g.is_grantable, 'column', g.attname
            )), '[]')
            from (
                select null::name as attname, x.grantee, x.privilege_type, x.is_grantable
                from aclexplode(c.relacl) as x
                union all
                select a.attname, x.grantee, x.privilege_type, x.is_grantable
                from pg_attribute as a
                cross join lateral aclexplode(a.attacl) as x
                where a.attrelid = c.oid and not a.attisdropped
            ) as g
            where g.grantee <> c.relowner
        ),
        'comments', (
            select coalesce(jsonb_agg(jsonb_build_object('column', a.attname, 'text', t.description)), '[]')
            from pg_description as t
            left join pg_attribute as a on t.objsubid > 0 and a.attrelid = c.oid and t.objsubid = a.attnum
            where t.classoid = 'pg_class'::regclass and t.objoid = c.oid
        ),
        'statistics', (
            select coalesce(jsonb_object_agg(a.attname, a.attstattarget), '{}')
            from pg_attribute as a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attstattarget >= 0
        ),
        'policies', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'name', p.polname, 'permissive', p.polpermissive,
                'command', case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                    when 'd' then 'delete' else 'all' end,
                'roles', (
                    select string_agg(case when r.oid = 0 then 'public' else r.oid::regrole::text end, ', ')
                    from unnest(p.polroles) as r (oid)
                ),
                'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)
            ) order by p.polname), '[]')
            from pg_policy as p
            where p.polrelid = c.oid
        )
    )
    from pg_class as c
    where c.oid = relation;
$$;

-- Set them on another relation. What is set on columns that it does not have is left out; a policy that does not fit is
-- an error: leaving it out would show rows that it hides.
create or replace function timeseries.set_properties(relation regclass, properties jsonb)
returns void
language plpgsql
as $$
declare
    kind "char" := (select c.relkind from pg_class as c where c.oid = relation);
    is_table boolean := kind in ('r', 'p');
    what text := case kind when 'v' then 'view' else 'table' end;
    columns text[] := array(
        select a.attname::text from pg_attribute as a
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
    );
    item jsonb;
    named record;
begin
    if not is_table and ((properties ->> 'row_security')::boolean or properties -> 'policies' <> '[]') then
        raise exception '% had row policies, and a view takes none', relation
        using hint = 'Drop the policies and guard the new view, then build again.';
    end if;
    if kind = 'v' and properties ->> 'options' is not null then
        execute format('alter view %s set (%s)', relation, properties ->> 'options');
    end if;

    for item in select * from jsonb_array_elements(properties -> 'comments') loop
        if item ->> 'column' is null then
            execute format('comment on %s %s is %L', what, relation, item ->> 'text');
        elsif item ->> 'column' = any(columns) then
            execute format('comment on column %s.%I is %L', relation, item ->> 'column', item ->> 'text');
        end if;
    end loop;

    if is_table then
        for named in select * from jsonb_each_text(properties -> 'statistics') loop
            if named.key = any(columns) then
                execute format('alter table %s alter column %I set statistics %s', relation, named.key, named.value);
            end if;
        end loop;
        for item in select * from jsonb_array_elements(properties -> 'policies') loop
            execute format(
                'create policy %I on %s as %s for %s to %s%s%s', item ->> 'name', relation,
                case when (item ->> 'permissive')::boolean then 'permissive' else 'restrictive' end,
                item ->> 'command', item ->> 'roles',
                ' using (' || (item ->> 'using') || ')', ' with check (' || (item ->> 'check') || ')'
            );
        end loop;
        if (properties ->> 'row_security')::boolean then
            execute format('alter table %s enable row level security', relation);
        end if;
        if (properties ->> 'force_row_security')::boolean then
            execute format('alter table %s force row level security', relation);
        end if;
        if properties ->> 'replica_identity' in ('n', 'f') then
            execute format(
                'alter table %s replica identity %s', relation,
                case properties ->> 'replica_identity' when 'n' then 'nothing' else 'full' end
            );
        elsif properties ->> 'replica_identity' = 'i' then
            execute format(
                'alter table %s replica identity %s', relation,
                coalesce((
                    select 'using index ' || quote_ident(n.relname)
                    from pg_index as i
                    inner join pg_class as n on n.oid = i.indexrelid
                    where i.indrelid = relation and i.indisunique and i.indpred is null and (
                        select jsonb_agg(a.attname order by k.place)
                        from unnest(i.indkey::smallint[]) with ordinality as k (attnum, place)
                        inner join pg_attribute as a on a.attrelid = relation and a.attnum = k.attnum
                    ) = properties -> 'replica_index'
                    limit 1
                ), 'full')
            );
        end if;
    end if;

    -- Exactly the grants of before: default privileges may have given others.
    for named in
        select distinct g.grantee
        from pg_class as c
        cross join lateral aclexplode(c.relacl) as g
        where c.oid = relation and g.grantee <> c.relowner
    loop
        execute format(
            'revoke all on %s from %s', relation,
            case when named.grantee = 0 then 'public' else named.grantee::regrole::text end
        );
    end loop;
    for item in select * from jsonb_array_elements(properties -> 'grants') loop
        if coalesce(item ->> 'column', columns[1]) = any(columns) then
            execute format(
                'grant %s%s on %s to %s%s', item ->> 'privilege', ' (' || quote_ident(item ->> 'column') || ')',
                relation, item ->> 'to',
                case when (item ->> 'grantable')::boolean then ' with grant option' else '' end
            );
        end if;
    end loop;
    if properties ->> 'owner' <> (select c.relowner::regrole::text from pg_class as c where c.oid = relation) then
        execute format('alter %s %s owner to %s', what, relation, properties ->> 'owner');
    end if;
end;
$$;

-- Before a relation is dropped: keep the properties of it and of the views on it. What dbt puts beside or out of the way
-- while it builds has a name of its own.
create or replace function timeseries.keep_properties(of_schema text, of_relation text)
returns void
language sql volatile
as $$
    insert into timeseries.kept_properties as k (schema_name, relation_name, properties)
    select n.nspname, c.relname, timeseries.properties(c.oid)
    from (
        select timeseries.find_relation(of_schema, of_relation)::oid as oid
        union
        select v.view_id from timeseries.views_on(timeseries.find_relation(of_schema, of_relation)) as v
    ) as dropped
    inner join pg_class as c on dropped.oid = c.oid
    inner join pg_namespace as n on c.relnamespace = n.oid
    where c.relname !~ '__dbt_(backup|tmp)'
    on conflict (schema_name, relation_name)
    do update set properties = excluded.properties, kept_at = now();
$$;

-- A relation has been made: it has the properties of the one before, which was dropped or is there by another name.
create or replace function timeseries.restore_properties(of_schema text, of_relation text, name_before text)
returns void
language plpgsql
as $$
declare
    kept jsonb;
begin
    delete from timeseries.kept_properties as k
    where k.schema_name = of_schema and k.relation_name = of_relation
    returning k.properties into kept;
    kept := coalesce(kept, timeseries.properties(timeseries.find_relation(of_schema, name_before)));
    if kept is not null then
        perform timeseries.set_properties(timeseries.find_relation(of_schema, of_relation), kept);
    end if;
end;
$$;

-- Drop a table, view, hypertable or continuous aggregate, with the views on it, and what is noted of it.
create or replace function timeseries.drop_relation(schema_name text, relation_name text)
returns void
language plpgsql
as $$
declare
    relation regclass := timeseries.find_relation(schema_name, relation_name);
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

-- Put a freshly built table or continuous aggregate in the place of another (or of none); it has the properties of the
-- one before. The views that stand on the old one are made again on the new one; one that no longer fits is left out
-- with a warning. Continuous aggregates of TimescaleDB cannot be moved: they go on standing on the old table, under
-- another name, until they are replaced themselves. An aggregate is parked as well: dropping it locks the table that it
-- reads, which must not wait in the middle of a transaction. drop_parked() clears up.
create or replace function timeseries.replace_relation(schema_name text, new_name text, relation_name text)
returns void
language plpgsql
as $$
declare
    live regclass;
    fresh regclass;
    live_kind "char";
    rename_kind text;
    parked text;
    kept jsonb;
    views jsonb := '[]';
    item jsonb;
    chunk record;
begin
    -- Two tables may have a view in common: one after the other, or each finds the view gone that the other is making.
    perform pg_advisory_xact_lock(hashtextextended('timeseries.replace_relation', 0));
    live := timeseries.find_relation(schema_name, relation_name);
    fresh := timeseries.find_relation(schema_name, new_name);
    if live is not null then
        live_kind := (select c.relkind from pg_class as c where c.oid = live);
        kept := timeseries.properties(live);
        select coalesce(jsonb_agg(jsonb_build_object(
            'name', format('%I.%I', n.nspname, c.relname),
            'kind', c.relkind,
            'definition', pg_get_viewdef(c.oid),
            'properties', timeseries.properties(c.oid)
        ) order by v.depth), '[]')
        into views
        from timeseries.views_on(live) as v
        inner join pg_class as c on v.view_id = c.oid
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
    if kept is not null then
        perform timeseries.set_properties(fresh, kept);
    end if;

    for item in select * from jsonb_array_elements(views) loop
        begin
            execute format('create view %s as %s', item ->> 'name', item ->> 'definition');
            perform timeseries.set_properties((item ->> 'name')::regclass, item -> 'properties');
        exception when undefined_column or undefined_table or undefined_function or datatype_mismatch then
            insert into timeseries.kept_properties (schema_name, relation_name, properties)
            select i.names[1], i.names[2], item -> 'properties'
            from parse_ident(item ->> 'name') as i (names)
            on conflict on constraint kept_properties_pkey do update set properties = excluded.properties;
            raise warning 'view % no longer fits %.% and was dropped: %',
                item ->> 'name', schema_name, relation_name, sqlerrm;
        end;
    end loop;
end;
$$;

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
                select from timeseries.aggregates_on(timeseries.find_relation(h.schema_name, h.table_name))
            )
        limit 1;
        exit when not found;
        perform timeseries.drop_relation(parked.schema_name, parked.table_name);
    end loop;
end;
$$;
