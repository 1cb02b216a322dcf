{#-
    The materialization hypertable: rows by event time. It keeps one promise: after a refresh, the rows of the slices
    are exactly what the model's SQL gives for them, also when that is nothing, and all other rows are untouched.

    How a table is cut by time is the engine's: the functions of schema timeseries (migrations/functions/hypertables.sql).
-#}
{% materialization hypertable, adapter='postgres' %}
    {%- set settings = sliced_config() -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set whole = builds_whole() -%}
    {%- set staged = this.identifier ~ '__staged' -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}

    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {%- do get_assert_columns_equivalent(sql) -%}
    {%- endif -%}

    {%- if whole -%}
        {%- do stage_rows(staged, sql, 'true') -%}
        {%- set columns = columns_of(staged) -%}
        {%- do check_staged(staged, columns, settings) -%}
        {%- do build_whole(target_relation, staged, columns, settings) -%}
    {%- else -%}
        {%- set slices = build_at_hand().slices -%}
        {%- if slices -%}
            {%- set live_columns = columns_of(this) -%}
            {%- do check_live(live_columns, settings) -%}
            {%- set looked_at = predicate_of(slices, settings, live_columns, settings.before_days, settings.after_days)
                ~ (' and ' ~ in_units() if settings.unit else '') -%}
            {%- do stage_rows(staged, sql, looked_at) -%}
            {%- set columns = change_columns(columns_of(staged), live_columns) -%}
            {%- set changed = note_changed_slices(staged, columns, settings, looked_at) -%}
        {%- endif -%}
        {%- if changed -%}
            {%- do replace_slices(target_relation, staged, columns, settings, predicate_of(changed, settings, columns)) -%}
        {%- else -%}
            {%- call statement('main') -%}
                select 1 where false
            {%- endcall -%}
        {%- endif -%}
    {%- endif -%}
    {%- call statement('end_build') -%}
        {{ set_lifecycle(settings) }};
        {{ end_build(none if whole else tojson(changed or [])) }}
    {%- endcall -%}

    {%- do apply_grants(target_relation, config.get('grants'), should_revoke(existing, full_refresh_mode=whole)) -%}
    {%- do persist_docs(target_relation, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#-
    The rows to be, in a temporary table: evaluated once, in parallel where PostgreSQL sees fit. The model's SQL is planned as
    it stands (`offset 0`): with the predicate pushed into it, the planner expected one row of 36,000 and joined them in loops.
-#}
{% macro stage_rows(staged, sql, predicate) %}
    {%- call statement('stage') -%}
        select timeseries.read_columnstore_safely();
        create temporary table {{ adapter.quote(staged) }} on commit drop as
        select * from (
            select * from (
                {{ sql }}
            ) as planned
            offset 0
        ) as model_rows
        where {{ predicate }}
    {%- endcall -%}
{% endmacro %}

{#-
    Build a table from all staged rows beside the live one, then put it in its place. What is older than the day
    before which retention has dropped raw rows cannot be built again: it is carried over.
-#}
{% macro build_whole(relation, staged, columns, settings) %}
    {%- set new = relation.incorporate(path={'identifier': relation.identifier ~ '__new'}) -%}
    {%- set horizon = build_at_hand().horizon -%}
    {%- if horizon and is_hypertable(this) -%}
        {%- set older = settings.time_column ~ " < " ~ ("date" if time_type(columns, settings) == 'date' else "timestamptz") ~ " '" ~ horizon ~ "'" -%}
        {%- set live = columns_of(this) | map(attribute='name') | list -%}
        {%- set kept = columns | selectattr('name', 'in', live) | list -%}
        {%- call statement('carry_over') -%}
            delete from {{ adapter.quote(staged) }} where {{ older }};
            insert into {{ adapter.quote(staged) }} ({{ quoted_names(kept) }})
            select {{ quoted_names(kept) }} from {{ this }} where {{ older }}
        {%- endcall -%}
    {%- endif -%}
    {%- call statement('create') -%}
        select timeseries.drop_relation('{{ new.schema }}', '{{ new.identifier }}');
        select timeseries.create_hypertable(
            '{{ new.schema }}', '{{ new.identifier }}', '{{ settings.time_column }}',
            interval '{{ settings.chunk_interval }}', $definition${{ table_definition(columns) }}$definition$
        )
    {%- endcall -%}
    {%- do ensure_chunks(new, staged, settings, columns) -%}
    {%- call statement('main') -%}
        insert into {{ new }} ({{ quoted_names(columns) }})
        select {{ quoted_names(columns) }} from {{ adapter.quote(staged) }}
    {%- endcall -%}
    {%- do create_indexes(new) -%}
    {%- call statement('swap') -%}
        select timeseries.replace_relation('{{ relation.schema }}', '{{ new.identifier }}', '{{ relation.identifier }}')
    {%- endcall -%}
    {%- call statement('analyze') -%}
        analyze {{ relation }}
    {%- endcall -%}
{% endmacro %}

{#- The condition on the model's own rows that they lie in slices, their days widened. -#}
{% macro predicate_of(slices, settings, columns, before_days=0, after_days=0) %}
    {{ return(slices_predicate(
        slices, settings.time_column, 'date' if time_type(columns, settings) == 'date' else 'timestamptz',
        'tenant_id' if settings.by_tenant else none, before_days, after_days,
    )) }}
{% endmacro %}

{#-
    Find what came out otherwise than it stands in the table, of what was looked at: slices, and with the config unit the units
    in them. Mostly that is little, for a model looks back and ahead, and reference data changes little. Answers the slices as
    groups (see ingest.builds), and leaves what changed in a temporary table.

    The slices are noted for the models that read this one; with the config keys by the values that the changed rows had or have
    in these columns, up to 10,000 in all, beyond which a reader finds all rows faster.
-#}
{% macro note_changed_slices(staged, columns, settings, looked_at) %}
    {%- set staged = adapter.quote(staged) -%}
    {%- set slice = [('tenant_id' if settings.by_tenant else "''") ~ ' as tenant_id', day_of(columns, settings) ~ ' as day'] -%}
    {%- set unit = [settings.unit] if settings.unit else [] -%}
    {%- set changed = is_changed(columns, settings) -%}
    {%- call statement('changed') -%}
        create temporary table {{ changed_slices() }} on commit drop as
        {{ differing(staged, columns, slice + unit, 'true', looked_at) }};
        analyze {{ changed_slices() }};
        {% if settings['keys'] -%}
        with keys as (
            {%- for key in settings['keys'] %}
            select tenant_id, day, '{{ key }}=' || coalesce({{ key }}::text, '') as key
            from ({{ differing(staged, columns, slice + [key], changed, looked_at ~ ' and ' ~ changed) }}) as changed_rows
            {{ 'union' if not loop.last }}
            {%- endfor %}
        )

        select ingest.note('{{ model.name }}', array_agg(tenant_id), array_agg(day), array_agg(key))
        from (
            select * from keys where (select count(*) from keys) <= 10000
            union
            select tenant_id, day, '' from keys where (select count(*) from keys) > 10000
        ) as noted
        {%- else -%}
        select ingest.note('{{ model.name }}', array_agg(tenant_id), array_agg(day)) from {{ changed_slices() }}
        {%- endif %}
    {%- endcall -%}
    {{ return(fromjson(run_query(
        'select ingest.grouped(array_agg(tenant_id), array_agg(day))::text as slices from ' ~ changed_slices()
    )[0]['slices'])) }}
{% endmacro %}

{#- The groups of rows that differ between the staged and the live ones; by: columns and expressions with their names. -#}
{% macro differing(staged, columns, by, staged_condition, live_condition) %}
    {%- set names = [] -%}
    {%- for part in by -%}{%- do names.append(part.split(' as ')[-1]) -%}{%- endfor %}
    select {{ names | join(', ') }}
    from ({{ group_hashes(staged, columns, by, staged_condition) }}) as staged_groups
    full join ({{ group_hashes(this, columns, by, live_condition) }}) as live_groups using ({{ names | join(', ') }})
    where (staged_groups.copies, staged_groups.hashes) is distinct from (live_groups.copies, live_groups.hashes)
{% endmacro %}

{#- The condition that rows are of what has changed. -#}
{% macro is_changed(columns, settings) %}
    {%- set unit = ', ' ~ settings.unit if settings.unit else '' -%}
    {{ return(
        '(' ~ ('tenant_id' if settings.by_tenant else "''") ~ ', ' ~ day_of(columns, settings) ~ unit
        ~ ') in (select changed.tenant_id, changed.day' ~ (', changed.' ~ settings.unit if settings.unit else '')
        ~ ' from ' ~ changed_slices() ~ ' as changed)'
    ) }}
{% endmacro %}

{% macro changed_slices() %}
    {{ return(adapter.quote(this.identifier ~ '__changed')) }}
{% endmacro %}

{% macro day_of(columns, settings) %}
    {{ return(
        settings.time_column if time_type(columns, settings) == 'date'
        else '(' ~ settings.time_column ~ " at time zone 'UTC')::date"
    ) }}
{% endmacro %}

{#-
    What the rows of each group come to, whatever their order: many times faster than to compare the rows. PostgreSQL's hash of
    a record is a weighted sum of its fields' hashes: summed as it is, rows that swap a value would come to the same. So it is
    hashed once more.
-#}
{% macro group_hashes(relation, columns, by, condition) %}
    {%- set values = [] -%}
    {%- for column in columns -%}
        {%- do values.append(adapter.quote(column.name) ~ ('::text' if column.type in ['json', 'xml'] else '')) -%}
    {%- endfor %}
    select
        {{ by | join(', ') }},
        count(*) as copies,
        sum(hash_numeric_extended(hash_record_extended(row({{ values | join(', ') }}), 0)::numeric, 0)::numeric) as hashes
    from {{ relation }}
    where {{ condition }}
    group by {{ range(1, by | length + 1) | join(', ') }}
{% endmacro %}

{#- Replace the rows of what has changed, which the predicate holds, with the staged ones. -#}
{% macro replace_slices(relation, staged, columns, settings, predicate) %}
    {%- set changed = is_changed(columns, settings) -%}
    {%- call statement('delete') -%}
        delete from {{ adapter.quote(staged) }} where not ({{ changed }});
        delete from {{ relation }} where {{ predicate }} and {{ changed }}
    {%- endcall -%}
    {%- do ensure_chunks(relation, staged, settings, columns) -%}
    {%- call statement('main') -%}
        insert into {{ relation }} ({{ quoted_names(columns) }})
        select {{ quoted_names(columns) }} from {{ adapter.quote(staged) }}
    {%- endcall -%}
    {%- call statement('analyze') -%}
        select timeseries.analyze_new_chunks('{{ relation.schema }}', '{{ relation.identifier }}')
    {%- endcall -%}
{% endmacro %}

{#- Make the chunks that the staged rows need, and no others: a slice may reach into an empty future. -#}
{% macro ensure_chunks(relation, staged, settings, columns) %}
    {%- call statement('chunks') -%}
        select timeseries.ensure_chunks('{{ relation }}', needed.starts_at, needed.starts_at + interval '1 microsecond')
        from (
            select distinct
                timeseries.chunk_start(days.day at time zone 'UTC', interval '{{ settings.chunk_interval }}') as starts_at
            from (
                {%- if time_type(columns, settings) == 'date' %}
                select distinct {{ settings.time_column }}::timestamp as day
                {%- else %}
                select distinct ({{ settings.time_column }} at time zone 'UTC')::date::timestamp as day
                {%- endif %}
                from {{ adapter.quote(staged) }}
            ) as days
        ) as needed
        order by needed.starts_at
    {%- endcall -%}
{% endmacro %}

{#- The SQL that sets how long the rows are kept, and when they go into the columnstore: from the model's config. -#}
{% macro set_lifecycle(settings) %}
    {%- set columnstore = settings.columnstore -%}
    select timeseries.set_lifecycle(
        '{{ this.schema }}', '{{ this.identifier }}',
        {{ "interval '" ~ columnstore.after ~ "'" if columnstore.after else 'null' }},
        array[{% for name in columnstore.segment_by or [] %}'{{ name }}'{{ ', ' if not loop.last }}{% endfor %}]::text[],
        {{ "'" ~ columnstore.order_by ~ "'" if columnstore.order_by else 'null' }},
        {{ "interval '" ~ settings.retention ~ "'" if settings.retention else 'null' }}
    )
{%- endmacro %}

{% macro time_type(columns, settings) %}
    {{ return((columns | selectattr('name', 'equalto', settings.time_column) | first).type) }}
{% endmacro %}

{% macro is_hypertable(relation) %}
    {%- set found = run_query(
        "select 1 from timeseries.hypertables where schema_name = '" ~ relation.schema ~ "' and table_name = '" ~ relation.identifier ~ "'"
    ) -%}
    {{ return(found | length > 0) }}
{% endmacro %}

{#- The columns of a table: name, type, collation where it is not the type's own. -#}
{% macro columns_of(relation) %}
    {%- set name = relation if relation is not string else adapter.quote(relation) -%}
    {%- set query -%}
        select
            a.attname as name,
            format_type(a.atttypid, a.atttypmod) as type,
            case when a.attcollation <> t.typcollation then quote_ident(c.collname) end as collation
        from pg_attribute as a
        inner join pg_type as t on a.atttypid = t.oid
        left join pg_collation as c on a.attcollation = c.oid
        where a.attrelid = '{{ name }}'::regclass and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    {%- endset -%}
    {%- set columns = [] -%}
    {%- for row in run_query(query) -%}
        {%- do columns.append({'name': row['name'], 'type': row['type'], 'collation': row['collation']}) -%}
    {%- endfor -%}
    {{ return(columns) }}
{% endmacro %}

{#- A time column must be there, be a time or a day, and have no nulls. -#}
{% macro check_staged(staged, columns, settings) %}
    {%- set found = columns | selectattr('name', 'equalto', settings.time_column) | list -%}
    {%- if not found -%}
        {%- do model_error("time_column is " ~ settings.time_column ~ ", but its SQL gives no such column. Select it or name another.") -%}
    {%- elif found[0].type not in ['timestamp with time zone', 'date'] -%}
        {%- do model_error("time_column " ~ settings.time_column ~ " is a " ~ found[0].type ~ ". Cast it to timestamptz or date.") -%}
    {%- endif -%}
    {%- if settings.by_tenant and not columns | selectattr('name', 'equalto', 'tenant_id') | list -%}
        {%- do model_error("its SQL gives no tenant_id, by which it is refreshed tenant by tenant. Select it, or add by_tenant=false to its config.") -%}
    {%- endif -%}
    {%- set nulls = run_query(
        'select 1 from ' ~ adapter.quote(staged) ~ ' where ' ~ settings.time_column ~ ' is null limit 1'
    ) -%}
    {%- if nulls | length > 0 -%}
        {%- do model_error("some rows have no " ~ settings.time_column ~ ": they would lie in no slice. Leave them out in its SQL.") -%}
    {%- endif -%}
{% endmacro %}

{#- The table that stands there must be one that slices can be replaced in. -#}
{% macro check_live(columns, settings) %}
    {%- set query -%}
        select time_column, chunk_interval = interval '{{ settings.chunk_interval }}' as same_interval
        from timeseries.hypertables
        where schema_name = '{{ this.schema }}' and table_name = '{{ this.identifier }}'
    {%- endset -%}
    {%- set registered = run_query(query) -%}
    {%- if registered | length == 0 -%}
        {%- do model_error("its table " ~ this ~ " is no hypertable, so no slice of it can be replaced. Run it once with --full-refresh.") -%}
    {%- elif registered[0]['time_column'] != settings.time_column -%}
        {%- do model_error("its table is cut by " ~ registered[0]['time_column'] ~ ", its config says " ~ settings.time_column ~ ". Run it once with --full-refresh.") -%}
    {%- elif not registered[0]['same_interval'] -%}
        {%- do model_error("its chunk_interval has changed to " ~ settings.chunk_interval ~ ". Run it once with --full-refresh.") -%}
    {%- endif -%}
{% endmacro %}

{#-
    Bring the table's columns into line with the model's SQL, as on_schema_change says; answers the columns to write.
    The other slices know nothing of a new column: it is null there until a full refresh.
-#}
{% macro change_columns(columns, live_columns) %}
    {#- dbt's own default is ignore, which loses columns without a word: here it must be asked for. -#}
    {%- set mode = config.get('on_schema_change') if 'on_schema_change' in model.unrendered_config else 'fail' -%}
    {%- set live = {} -%}
    {%- set wanted = {} -%}
    {%- for column in live_columns -%}{%- do live.update({column.name: column.type}) -%}{%- endfor -%}
    {%- for column in columns -%}{%- do wanted.update({column.name: column.type}) -%}{%- endfor -%}
    {%- set new = [] -%}
    {%- set retyped = [] -%}
    {%- set gone = live.keys() | reject('in', wanted) | list -%}
    {%- for name, type in wanted.items() -%}
        {%- if name not in live -%}
            {%- do new.append(name) -%}
        {%- elif live[name] != type -%}
            {%- do retyped.append(name) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set cannot = (
        new + gone + retyped if mode == 'fail'
        else gone + retyped if mode == 'ignore'
        else retyped if mode == 'append_new_columns'
        else []
    ) -%}
    {%- if cannot -%}
        {%- do model_error(
            "its SQL and its table differ, and a slice cannot change the columns of all the others."
            ~ (" New: " ~ new | join(', ') ~ "." if new else "")
            ~ (" Gone: " ~ gone | join(', ') ~ "." if gone else "")
            ~ (" Of another type: " ~ retyped | join(', ') ~ "." if retyped else "")
            ~ " Run it once with --full-refresh, or set on_schema_change."
        ) -%}
    {%- endif -%}
    {%- set changes = [] -%}
    {%- if mode in ['append_new_columns', 'sync_all_columns'] -%}
        {%- for name in new -%}{%- do changes.append('add column ' ~ adapter.quote(name) ~ ' ' ~ wanted[name]) -%}{%- endfor -%}
    {%- endif -%}
    {%- if mode == 'sync_all_columns' -%}
        {%- for name in gone -%}{%- do changes.append('drop column ' ~ adapter.quote(name)) -%}{%- endfor -%}
        {%- for name in retyped -%}
            {%- do changes.append('alter column ' ~ adapter.quote(name) ~ ' type ' ~ wanted[name]) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if changes -%}
        {%- call statement('change_columns') -%}
            {%- for change in changes %}
            alter table {{ this }} {{ change }};
            {%- endfor %}
        {%- endcall -%}
    {%- endif -%}
    {{ return(columns | rejectattr('name', 'in', new if mode == 'ignore' else []) | list) }}
{% endmacro %}

{% macro quoted_names(columns) %}
    {%- set names = [] -%}
    {%- for column in columns -%}{%- do names.append(adapter.quote(column.name)) -%}{%- endfor -%}
    {{ return(names | join(', ')) }}
{% endmacro %}

{#-
    What stands between the brackets of CREATE TABLE: the columns as the model's SQL gives them, collation
    included, and the constraints of its contract.
-#}
{% macro table_definition(columns) %}
    {%- set types = {} -%}
    {%- for column in columns -%}
        {%- do types.update({column.name: column.type ~ (' collate ' ~ column.collation if column.collation else '')}) -%}
    {%- endfor -%}
    {%- set parts = [] -%}
    {%- if config.get('contract').enforced -%}
        {%- set described = {} -%}
        {%- for column in columns -%}
            {%- set contract_column = model.columns[column.name].copy() -%}
            {%- do contract_column.update({'data_type': types[column.name]}) -%}
            {%- do described.update({column.name: contract_column}) -%}
        {%- endfor -%}
        {%- do parts.extend(adapter.render_raw_columns_constraints(raw_columns=described)) -%}
        {%- do parts.extend(adapter.render_raw_model_constraints(raw_constraints=model.constraints)) -%}
    {%- else -%}
        {%- for column in columns -%}
            {%- do parts.append(adapter.quote(column.name) ~ ' ' ~ types[column.name]) -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(parts | join(', ')) }}
{% endmacro %}
