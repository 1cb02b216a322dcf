{#-
    The materializations hypertable and continuous_aggregate. They differ in what a model says about itself: rows
    by event time, or groups by a bucket of it. Both keep one promise: after a refresh, the rows of the window are
    exactly what the model's SQL gives for it, also when that is nothing, and all other rows are untouched.

    How a table cut by time is made, filled and exchanged is the engine's (macros/engines/).
-#}
{% materialization hypertable, adapter='postgres' %}
    {{ return(build_windowed()) }}
{% endmaterialization %}

{% materialization continuous_aggregate, adapter='postgres' %}
    {{ return(build_windowed()) }}
{% endmaterialization %}

{% macro build_windowed() %}
    {%- set settings = windowed_config() -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set whole = builds_whole() -%}
    {%- set staged = this.identifier ~ '__staged' -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}

    {#- One transaction from here: two refreshes of one table wait for each other. -#}
    {%- call statement('lock') -%}
        select pg_advisory_xact_lock(hashtextextended('earmark refresh {{ this.schema }}.{{ this.identifier }}', 0))
    {%- endcall -%}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {%- do get_assert_columns_equivalent(sql) -%}
    {%- endif -%}

    {%- if whole -%}
        {%- do stage_rows(staged, sql, 'true') -%}
        {%- set columns = columns_of(staged) -%}
        {%- do check_staged(staged, columns, settings) -%}
        {%- if existing is not none and not existing.is_table -%}
            {%- do adapter.drop_relation(existing) -%}
        {%- endif -%}
        {%- do engine__build_whole(target_relation, staged, columns, settings) -%}
    {%- else -%}
        {%- set windows = widen_windows(run_windows(), settings.before_days, settings.after_days) -%}
        {%- set live_columns = columns_of(this) -%}
        {%- do check_live(live_columns, settings) -%}
        {%- set column_type = live_columns | selectattr('name', 'equalto', settings.time_column) | map(attribute='type') | first -%}
        {%- set predicate = window_predicate(settings.time_column, windows, short_time_type(column_type)) -%}
        {%- do stage_rows(staged, sql, predicate) -%}
        {%- set columns = columns_of(staged) -%}
        {%- do check_same_columns(columns, live_columns) -%}
        {%- do engine__replace_windows(target_relation, staged, columns, settings, predicate) -%}
    {%- endif -%}

    {%- do apply_grants(target_relation, config.get('grants'), should_revoke(existing, full_refresh_mode=whole)) -%}
    {%- if whole -%}
        {%- do persist_docs(target_relation, model) -%}
    {%- endif -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}
{% endmacro %}

{#- The rows to be, in a temporary table: evaluated once, in parallel where PostgreSQL sees fit. -#}
{% macro stage_rows(staged, sql, predicate) %}
    {%- call statement('stage') -%}
        create temporary table {{ adapter.quote(staged) }} on commit drop as
        select * from (
            {{ sql }}
        ) as model_rows
        where {{ predicate }}
    {%- endcall -%}
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

{% macro short_time_type(type) %}
    {{ return('date' if type == 'date' else 'timestamptz') }}
{% endmacro %}

{#- A time column must be there, be a time or a day, and have no nulls. -#}
{% macro check_staged(staged, columns, settings) %}
    {%- set found = columns | selectattr('name', 'equalto', settings.time_column) | list -%}
    {%- if not found -%}
        {%- do windowed_error("time_column is " ~ settings.time_column ~ ", but its SQL gives no such column. Select it or name another.") -%}
    {%- elif found[0].type not in ['timestamp with time zone', 'date'] -%}
        {%- do windowed_error("time_column " ~ settings.time_column ~ " is a " ~ found[0].type ~ ". Cast it to timestamptz or date.") -%}
    {%- endif -%}
    {%- set nulls = run_query(
        'select 1 from ' ~ adapter.quote(staged) ~ ' where ' ~ settings.time_column ~ ' is null limit 1'
    ) -%}
    {%- if nulls | length > 0 -%}
        {%- do windowed_error("some rows have no " ~ settings.time_column ~ ": they would lie in no window. Leave them out in its SQL.") -%}
    {%- endif -%}
{% endmacro %}

{#- The table that stands there must be one that a window can be replaced in. -#}
{% macro check_live(columns, settings) %}
    {%- set query -%}
        select time_column, chunk_interval = interval '{{ settings.chunk_interval }}' as same_interval
        from timeseries.hypertables
        where schema_name = '{{ this.schema }}' and table_name = '{{ this.identifier }}'
    {%- endset -%}
    {%- set registered = run_query(query) -%}
    {%- if registered | length == 0 -%}
        {%- do windowed_error("its table " ~ this ~ " is no hypertable, so no window of it can be replaced. Run it once with --full-refresh.") -%}
    {%- elif registered[0]['time_column'] != settings.time_column -%}
        {%- do windowed_error("its table is cut by " ~ registered[0]['time_column'] ~ ", its config says " ~ settings.time_column ~ ". Run it once with --full-refresh.") -%}
    {%- elif not registered[0]['same_interval'] -%}
        {%- do windowed_error("its chunk_interval has changed to " ~ settings.chunk_interval ~ ". Run it once with --full-refresh.") -%}
    {%- endif -%}
{% endmacro %}

{% macro check_same_columns(columns, live_columns) %}
    {%- set wanted = [] -%}
    {%- set live = [] -%}
    {%- for column in columns -%}{%- do wanted.append(column.name ~ ' ' ~ column.type) -%}{%- endfor -%}
    {%- for column in live_columns -%}{%- do live.append(column.name ~ ' ' ~ column.type) -%}{%- endfor -%}
    {%- set gone = live | reject('in', wanted) | list -%}
    {%- set new = wanted | reject('in', live) | list -%}
    {%- if gone or new -%}
        {%- do windowed_error(
            "its SQL and its table differ, and a window cannot change the columns of all the others."
            ~ (" New: " ~ new | join(', ') ~ "." if new else "")
            ~ (" Gone: " ~ gone | join(', ') ~ "." if gone else "")
            ~ " Run it once with --full-refresh."
        ) -%}
    {%- endif -%}
{% endmacro %}
