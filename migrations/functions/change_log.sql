-- The change log: who notes slices in it, and what is news to whom. Its tables and its idea: 0005_change_log.sql.

-- A snapshot means something only in the cluster where it was taken, not in one restored from a dump.
create or replace function ingest.cluster()
returns bigint
language sql stable
as 'select c.system_identifier from pg_control_system() as c';

-- Who writes ------------------------------------------------------------------------------------------------------

-- Note slices: tenants and days in pairs, and the keys of the rows where they are known. They are taken in key order, so
-- that two writers never deadlock.
create or replace function ingest.note(of_producer text, tenants text[], days date[], keys text[] default null)
returns void
language sql
as $$
    insert into ingest.changes as c (producer, tenant_id, day, key)
    select of_producer, s.tenant_id, s.day, s.key
    from (
        select distinct t.tenant_id collate "C" as tenant_id, t.day, coalesce(t.key, '') collate "C" as key
        from unnest(tenants, days, keys) as t (tenant_id, day, key)
    ) as s
    order by s.tenant_id, s.day, s.key
    on conflict (producer, tenant_id, day, key)
    do update set changed_by = pg_current_xact_id(), changed_at = now()
    where c.changed_by <> pg_current_xact_id();
$$;

-- Say that days of a tenant's dataset have changed; '-infinity' is any day.
create or replace function ingest.mark_changed(tenant text, of_dataset text, days date[])
returns void
language plpgsql
as $$
begin
    if to_regclass(format('raw.%I', of_dataset)) is null then
        raise exception 'there is no dataset %: raw has no such table', of_dataset
        using hint = 'Name a table of schema raw, such as listener_events.';
    elsif not exists (select from tenancy.tenants as t where t.tenant_id = tenant) then
        raise exception 'there is no tenant %', tenant
        using hint = 'Add it first: earmark tenant add.';
    end if;
    perform ingest.note('raw.' || of_dataset, array_fill(tenant, array[cardinality(days)]), days);
end;
$$;

-- Whoever writes a row of a day notes its slice: this trigger, told the column of its day. The loader notes the slices of a
-- file by itself, at once, and says so with the setting earmark.marks_days: per row that costs it next to nothing. (A
-- trigger a statement, as below, took a third off the speed of COPY into a partitioned table.)
create or replace function ingest.note_change()
returns trigger
language plpgsql
as $$
declare
    producer text := tg_argv[0];
    touched jsonb;
    day_of date;
    mark text;
begin
    foreach touched in array
        case tg_op
            when 'INSERT' then array[to_jsonb(new)] when 'DELETE' then array[to_jsonb(old)]
            else array[to_jsonb(old), to_jsonb(new)]
        end
    loop
        day_of := ((touched ->> tg_argv[1])::timestamptz at time zone 'UTC')::date;
        -- Rows of one slice mostly come together: the last mark of this transaction is remembered.
        mark := concat_ws(' ', pg_current_xact_id(), producer, touched ->> 'tenant_id', day_of);
        if current_setting('earmark.last_mark', true) is distinct from mark then
            perform ingest.note(producer, array[touched ->> 'tenant_id'], array[day_of]);
            perform set_config('earmark.last_mark', mark, true);
        end if;
    end loop;
    return null;
end;
$$;

-- What was dropped from a table at once is not known by row.
create or replace function ingest.note_truncate()
returns trigger
language plpgsql
as $$
begin
    perform ingest.note(tg_argv[0], array[''], array['-infinity'::date]);
    return null;
end;
$$;

-- Reference data: any day of the tenant, every tenant where the rows have none. Told columns, the rows are named by them.
create or replace function ingest.note_reference_change()
returns trigger
language plpgsql
as $$
declare
    touched text := case tg_op
        when 'INSERT' then 'select to_jsonb(t) as r from written as t'
        when 'DELETE' then 'select to_jsonb(t) as r from gone as t'
        else '(select to_jsonb(t) from written as t except all select to_jsonb(t) from gone as t)'
            || ' union all (select to_jsonb(t) from gone as t except all select to_jsonb(t) from written as t)'
    end;
begin
    execute format(
        'select ingest.note(%L, array_agg(coalesce(t.r ->> ''tenant_id'', '''')), array_agg(''-infinity''::date), array_agg(k.key))'
        || ' from (%s) as t (r)'
        || ' left join lateral (select c || ''='' || coalesce(t.r ->> c, '''') as key from unnest(%L::text[]) as c) as k on true'
        || ' having count(*) > 0',
        tg_argv[0], touched, tg_argv[1:]
    );
    return null;
end;
$$;

-- A trigger that is there stays: to change one, drop it in a numbered file.
do $$
declare
    of_table regclass;
    day_column text;
    keys text;
begin
    for of_table, day_column in
        select
            c.oid::regclass,
            coalesce(
                h.time_column,
                (
                    select a.attname from pg_attribute as a
                    where a.attrelid = c.oid and c.relname = 'spend' and a.attname = 'spend_date'
                )
            )
        from pg_class as c
        left join timeseries.hypertables as h on h.schema_name = 'raw' and h.table_name = c.relname
        where
            not c.relispartition and c.relkind in ('r', 'p')
            and not exists (select from pg_trigger as t where t.tgrelid = c.oid and t.tgname = 'note_truncate')
            and (
                c.relnamespace = 'raw'::regnamespace
                or c.oid in ('tenancy.safe_addresses'::regclass, 'ingest.agent_lists'::regclass)
            )
    loop
        execute format(
            'create trigger note_truncate after truncate on %1$s for each statement'
            || ' execute function ingest.note_truncate(%1$L)', of_table
        );
        if day_column is not null then
            execute format(
                'create trigger note_change after insert or update or delete on %1$s for each row'
                || ' when (coalesce(current_setting(''earmark.marks_days'', true), '''') <> ''yes'')'
                || ' execute function ingest.note_change(%1$L, %2$L)', of_table, day_column
            );
        else
            keys := case of_table
                when 'raw.episodes'::regclass then $k$, 'episode_id', 'enclosure_key', 'guid'$k$
                when 'raw.episode_enclosures'::regclass then $k$, 'enclosure_key'$k$
                when 'ingest.agent_lists'::regclass then $k$, 'effective_from'$k$
                else ''
            end;
            execute format(
                'create trigger note_insert after insert on %1$s referencing new table as written'
                || ' for each statement execute function ingest.note_reference_change(%1$L%2$s);'
                || 'create trigger note_delete after delete on %1$s referencing old table as gone'
                || ' for each statement execute function ingest.note_reference_change(%1$L%2$s);'
                || 'create trigger note_update after update on %1$s referencing new table as written old table as gone'
                || ' for each statement execute function ingest.note_reference_change(%1$L%2$s)', of_table, keys
            );
        end if;
    end loop;
end;
$$;

-- A tenant's settings; its name is none.
create or replace function ingest.note_setting_change()
returns trigger
language plpgsql
as $$
begin
    perform ingest.note('tenancy.tenants', array[new.tenant_id], array['-infinity'::date]);
    return null;
end;
$$;
create or replace trigger note_change after update on tenancy.tenants for each row
when ((to_jsonb(old) - 'name') is distinct from (to_jsonb(new) - 'name'))
execute function ingest.note_setting_change();

-- Who reads -------------------------------------------------------------------------------------------------------

-- The day before which retention has dropped raw rows: what is older cannot be built again.
create or replace function ingest.horizon()
returns date
language sql stable
as $$
    select (max(h.dropped_before) at time zone 'UTC')::date from timeseries.hypertables as h where h.schema_name = 'raw';
$$;

-- The changes of these producers that a snapshot does not show. The index finds them: history costs nothing. The planner,
-- which takes a third of the table for unseen, would read all of it.
create or replace function ingest.unseen(seen pg_snapshot, producers text[])
returns setof ingest.changes
language sql stable
set enable_seqscan = off
as $$
    select c.*
    from ingest.changes as c
    where
        c.changed_by >= pg_snapshot_xmin(seen) and not pg_visible_in_snapshot(c.changed_by, seen)
        and c.producer = any(producers) and (c.day = '-infinity' or c.day >= coalesce(ingest.horizon(), '-infinity'));
$$;

-- What is news to a model: what of these producers it has not seen. given: the days that were asked for instead, of all
-- tenants; to them come the news from other models, which this invocation may have made. Nothing where it was never built here.
create or replace function ingest.news(of_model text, producers text[], given datemultirange default null)
returns table (tenant_id text, day date, key text, value text)
language sql stable
as $$
    select u.tenant_id, u.day, split_part(u.key, '=', 1), nullif(substr(u.key, strpos(u.key, '=') + 1), '')
    from ingest.model_builds as b
    cross join lateral ingest.unseen(b.seen, producers) as u
    where b.model = of_model and b.cluster = ingest.cluster() and (given is null or u.producer not like '%.%')
    union all
    select '', d.day::date, '', null
    from unnest(given) as r
    cross join lateral generate_series(lower(r)::timestamp, upper(r)::timestamp - interval '1 day', interval '1 day') as d (day);
$$;

-- Slices, tenants and days in pairs, as the groups of ingest.builds.slices: the fewest that hold exactly these, from a day
-- on. Beyond a hundred ranges of days or a thousand tenants a condition would cost more than it saves: then they are the days
-- of all tenants, and where these are too many, the span from the first to the last.
create or replace function ingest.grouped(tenants text[], days date[], since date default null)
returns jsonb
language sql stable
as $$
    with of_tenant as (
        select
            s.tenant_id,
            range_agg(
                case when isfinite(s.day) then daterange(s.day, s.day + 1) else daterange(null, null) end
                * daterange(since, null)
            ) as days
        from unnest(tenants, days) as s (tenant_id, day)
        group by s.tenant_id
    ),

    exact as (
        select array_agg(t.tenant_id order by t.tenant_id) filter (where t.tenant_id <> '') as tenants, t.days
        from of_tenant as t
        where not isempty(t.days)
        group by t.tenant_id = '', t.days
    ),

    all_tenants as (
        select null::text[] as tenants, range_agg(e.days) as days
        from exact as e
        having
            sum((select count(*) from unnest(e.days))) > 100
            or (select count(*) from of_tenant) > 1000
    ),

    groups as (
        select e.* from exact as e where not exists (select from all_tenants)
        union all
        select
            a.tenants,
            case when (select count(*) from unnest(a.days)) > 100 then range_merge(a.days)::datemultirange else a.days end
        from all_tenants as a
    )

    select coalesce(
        jsonb_agg(
            jsonb_build_object(
                'tenants', g.tenants,
                'days', (select jsonb_agg(jsonb_build_array(lower(r), upper(r)) order by r) from unnest(g.days) as r)
            )
            order by g.tenants nulls first
        ),
        '[]'
    )
    from groups as g;
$$;

-- The tenants and days of groups one by one, as the log notes them; what has no bound is any day.
create or replace function ingest.listed(slices jsonb)
returns table (tenant_id text, day date)
language sql stable
as $$
    select distinct t.tenant_id, d.day::date
    from jsonb_array_elements(slices) as g
    cross join lateral jsonb_array_elements(g -> 'days') as r
    cross join lateral (
        select '' as tenant_id where g -> 'tenants' = 'null'
        union all
        select jsonb_array_elements_text(case when g -> 'tenants' <> 'null' then g -> 'tenants' end)
    ) as t
    cross join lateral (
        select generate_series((r ->> 0)::timestamp, (r ->> 1)::timestamp - interval '1 day', interval '1 day') as day
        where r ->> 0 is not null and r ->> 1 is not null
        union all
        select '-infinity' where r ->> 0 is null or r ->> 1 is null
    ) as d;
$$;

-- The days of groups, whosever they are, as disjoint ranges.
create or replace function ingest.spans(slices jsonb)
returns setof daterange
language sql stable
as $$
    select unnest(range_agg(daterange((r ->> 0)::date, (r ->> 1)::date)))
    from jsonb_array_elements(slices) as g
    cross join lateral jsonb_array_elements(g -> 'days') as r;
$$;

-- What a model builds in an invocation, fixed when it is first asked: a model and its tests mean the same slices, whatever
-- is loaded meanwhile. All that is news to it; everything where it was never built here.
create or replace function ingest.begin_build(
    of_model text, of_invocation text, producers text[], whole boolean, given datemultirange default null
)
returns ingest.builds
language plpgsql
as $$
declare
    build ingest.builds;
    known ingest.model_builds;
begin
    select b.* into build from ingest.builds as b where b.model = of_model and b.invocation_id = of_invocation;
    if found and (build.slices is null or not whole) then
        return build;
    end if;
    build.model := of_model;
    build.invocation_id := of_invocation;
    build.taken := pg_current_snapshot();
    build.is_complete := true;
    build.horizon := ingest.horizon();
    build.begun_at := clock_timestamp();
    build.slices := null;
    select b.* into known from ingest.model_builds as b
    where b.model = of_model and b.seen is not null and b.cluster = ingest.cluster();
    if found and not whole then
        select ingest.grouped(array_agg(n.tenant_id), array_agg(n.day), build.horizon) into build.slices
        from ingest.news(of_model, producers, given) as n;
        build.is_complete := given is null or not exists (
            select from ingest.unseen(known.seen, producers) as u
            where u.producer like '%.%' and not u.day <@ given
        );
    end if;
    insert into ingest.builds as b
    select build.*
    on conflict (model, invocation_id) do update set slices = null, is_complete = true;
    return build;
end;
$$;

-- A model that found by the keys of its news what hangs on them says which slices these are.
create or replace function ingest.look_at(of_model text, of_invocation text, tenants text[], days date[])
returns jsonb
language sql
as $$
    update ingest.builds as b
    set slices = ingest.grouped(tenants, days, b.horizon)
    where b.model = of_model and b.invocation_id = of_invocation
    returning b.slices;
$$;

-- A model is built: what it has seen, and the slices that came out otherwise, for those that read it. changed: null where that
-- is not known, of what it looked at all.
create or replace function ingest.end_build(of_model text, of_invocation text, producers text[], changed jsonb default null)
returns void
language plpgsql
as $$
declare
    build ingest.builds;
begin
    update ingest.builds as b
    set ended_at = clock_timestamp(), changed = coalesce(end_build.changed, b.slices)
    where b.model = of_model and b.invocation_id = of_invocation
    returning b.* into build;
    if not found then
        raise exception 'the build of % by % has not begun', of_model, of_invocation;
    end if;
    insert into ingest.model_builds as b (model, seen, cluster, inputs)
    values (of_model, build.taken, ingest.cluster(), producers)
    on conflict (model) do update
    set
        seen = case when build.is_complete then excluded.seen else b.seen end,
        cluster = excluded.cluster, inputs = excluded.inputs, built_at = now();
    if build.slices is null then
        perform ingest.note(of_model, array[''], array['-infinity'::date]);
    end if;
end;
$$;

-- The slices that models looked at in an invocation; null where one was built whole or none was built.
create or replace function ingest.looked_at(of_models text[], of_invocation text)
returns jsonb
language sql stable
as $$
    select case
        when count(*) > 0 and bool_and(b.slices is not null) then (
            select ingest.grouped(array_agg(s.tenant_id), array_agg(s.day))
            from ingest.builds as o
            cross join lateral ingest.listed(o.slices) as s
            where o.invocation_id = of_invocation and o.model = any(of_models)
        )
    end
    from ingest.builds as b
    where b.invocation_id = of_invocation and b.model = any(of_models);
$$;

-- The readers to which something is news.
create or replace function ingest.models_to_refresh()
returns setof text
language sql stable
as $$
    select b.model
    from ingest.model_builds as b
    where b.seen is not null and b.cluster = ingest.cluster() and exists (select from ingest.unseen(b.seen, b.inputs));
$$;

-- The days with requests on which lists of user agents are in effect that began on these days, or would be.
create or replace function ingest.days_of_agent_lists(starts date[])
returns table (tenant_id text, day date)
language sql stable
as $$
    select distinct e.tenant_id, (e.occurred_at at time zone 'UTC')::date
    from unnest(starts) as l (effective_from)
    inner join raw.listener_events as e
        on
            e.occurred_at >= l.effective_from::timestamp at time zone 'UTC'
            and e.occurred_at < coalesce(
                (select min(n.effective_from) from ingest.agent_lists as n where n.effective_from > l.effective_from)::timestamp
                at time zone 'UTC',
                'infinity'
            );
$$;

-- Reference data that is news to some model, as the days on which its rows can be met. They are looked up only here, by who
-- reads: the writer does not see the events of a transaction beside it, and the reader of those does not see its rows.
create or replace function ingest.narrow()
returns void
language plpgsql
as $$
declare
    changed record;
begin
    for changed in
        with unseen as (
            select c.producer, c.tenant_id, c.day, c.key
            from ingest.changes as c
            where
                c.producer in ('raw.episodes', 'raw.episode_enclosures', 'ingest.agent_lists') and c.key <> ''
                and exists (
                    select from ingest.model_builds as b
                    where
                        c.producer = any(b.inputs) and b.cluster = ingest.cluster()
                        and not pg_visible_in_snapshot(c.changed_by, b.seen)
                )
            for update skip locked
        ),

        taken as (
            delete from ingest.changes as c
            using unseen as u
            where (c.producer, c.tenant_id, c.day, c.key) = (u.producer, u.tenant_id, u.day, u.key)
            returning c.producer, c.tenant_id, split_part(c.key, '=', 1) as name, substr(c.key, strpos(c.key, '=') + 1) as value
        )

        select
            t.producer,
            t.tenant_id,
            array_agg(t.value) filter (where t.name = 'episode_id') as episodes,
            -- A log that does not say its host has the path alone.
            array_agg(t.value) filter (where t.name = 'enclosure_key')
            || array_agg(substr(t.value, strpos(t.value, '/'))) filter (where t.name = 'enclosure_key' and strpos(t.value, '/') > 1)
                as enclosures,
            array_agg(t.value) filter (where t.name = 'guid') as guids,
            array_agg(t.value::date) filter (where t.name = 'effective_from') as lists
        from taken as t
        where t.value <> ''
        group by t.producer, t.tenant_id
    loop
        if changed.producer <> 'ingest.agent_lists' then
            -- With an episode the files that it had come and go too.
            changed.enclosures := changed.enclosures || array(
                select unnest(array[s.enclosure_key, substr(s.enclosure_key, nullif(strpos(s.enclosure_key, '/'), 0))])
                from raw.episode_enclosures as s
                where s.tenant_id = changed.tenant_id and s.episode_id = any(changed.episodes)
            );
            perform ingest.note(changed.producer, array_agg(changed.tenant_id), array_agg(d.day))
            from (
                select (e.occurred_at at time zone 'UTC')::date as day
                from raw.listener_events as e
                where
                    e.tenant_id = changed.tenant_id
                    and (
                        e.episode_id = any(changed.episodes)
                        or e.episode_guid = any(changed.guids)
                        or e.enclosure_key = any(changed.enclosures)
                        or e.ad_unit_id = any(
                            array(
                                select u.ad_unit_id from raw.ad_units as u
                                where u.tenant_id = changed.tenant_id and u.episode_id = any(changed.episodes)
                            )
                        )
                    )
                union
                select m.metric_date
                from raw.listener_metrics as m
                where m.tenant_id = changed.tenant_id and m.episode_id = any(changed.episodes || changed.guids)
            ) as d;
        else
            perform ingest.note(changed.producer, array_agg(d.tenant_id), array_agg(d.day))
            from ingest.days_of_agent_lists(changed.lists) as d;
        end if;
    end loop;
end;
$$;

-- Before a run: what every reader of a producer has seen is forgotten. In a cluster that a dump was restored into, transactions are numbered
-- anew, and the changes of the dump bear numbers that are yet to come: they are older than all, for each model is built
-- whole there once.
create or replace function ingest.begin_run()
returns void
language plpgsql
as $$
begin
    update ingest.changes set changed_by = '3' where changed_by >= pg_snapshot_xmax(pg_current_snapshot());
    delete from ingest.changes as c
    using (
        select s.producer, s.tenant_id, s.day, s.key
        from ingest.changes as s
        cross join lateral (
            select count(*) as readers, bool_and(pg_visible_in_snapshot(s.changed_by, b.seen)) as have_seen
            from ingest.model_builds as b
            where s.producer = any(b.inputs) and b.seen is not null and b.cluster = ingest.cluster()
        ) as r
        -- What a model notes and nobody reads is forgotten too; what is loaded waits for who will read it.
        where case when r.readers > 0 then r.have_seen else s.producer not like '%.%' end
        for update of s skip locked
    ) as f
    where c.producer = f.producer and c.tenant_id = f.tenant_id and c.day = f.day and c.key = f.key;
    perform timeseries.analyze_new_chunks('raw');
    perform ingest.narrow();
    delete from ingest.builds where begun_at < now() - interval '7 days';
end;
$$;

-- The slices that wait for a refresh: news to some model, or, before the first build, all of them.
create or replace view ingest.pending_refresh as
select
    d.producer,
    d.tenant_id,
    d.day,
    max(d.changed_by) as changed_by,
    max(d.changed_at) as changed_at
from (
    select b.seen, b.inputs
    from ingest.model_builds as b
    where b.seen is not null and b.cluster = ingest.cluster() and b.model <> 'fit'
    union all
    select '1:1:', array(select c.producer from ingest.changes as c)
    where not exists (
        select from ingest.model_builds as b where b.seen is not null and b.cluster = ingest.cluster() and b.model <> 'fit'
    )
) as s
cross join lateral ingest.unseen(s.seen, s.inputs) as d
group by d.producer, d.tenant_id, d.day;

comment on view ingest.pending_refresh is
'One row a slice of a producer that changed and that some model that reads it has not seen yet.';
