{#-
    Put a new table in the place of a live one and keep the views that stand on it, with their options, grants and
    comments: readers look through views, and a rebuild must not take them away until the next build of the views.
    A view that the new table no longer fits is left out with a warning; its own model makes it anew.
-#}
{% macro swap_keeping_views(relation, new) %}
do $swap$
declare
    live regclass := to_regclass('{{ relation }}');
    views jsonb := '[]';
    item jsonb;
    grantee jsonb;
    note jsonb;
begin
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
        ),

        ordered as (
            select s.oid, max(s.depth) as depth
            from standing as s
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
                raise exception '% stands on {{ relation }} and is no view: drop it before the rebuild', item ->> 'name';
            end if;
        end loop;
        execute format('drop table %s cascade', live);
    end if;

    perform timeseries.swap_hypertable('{{ relation.schema }}', '{{ new.identifier }}', '{{ relation.identifier }}');

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
            raise warning 'view % no longer fits {{ relation }} and was dropped: %', item ->> 'name', sqlerrm;
        end;
    end loop;
end
$swap$
{% endmacro %}
