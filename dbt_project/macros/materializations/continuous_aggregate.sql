{#-
    The materialization continuous_aggregate: groups by a bucket of event time. TimescaleDB's own where it is there,
    else a table whose buckets are replaced; create, refresh and replace are functions of schema timeseries, the same
    on both. Buckets are brought up to date one span of days after the other, each in a transaction of its own; that is why the
    lock of the relation is held by the session.

    The SQL is what TimescaleDB takes: one select from a hypertable or another continuous aggregate, grouped by
    time_bucket(), without common table expressions.
-#}
{% materialization continuous_aggregate, adapter='postgres' %}
    {%- set settings = sliced_config() -%}
    {%- set sql = without_limits(sql) -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set whole = builds_whole() -%}
    {%- set new = this.incorporate(path={'identifier': this.identifier ~ '__new'}) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- do lock_relation(of_session=true) -%}
    {%- if whole -%}
        {%- call statement('create') -%}
            select timeseries.drop_relation('{{ new.schema }}', '{{ new.identifier }}');
            select timeseries.create_continuous_aggregate(
                '{{ new.schema }}', '{{ new.identifier }}', '{{ settings.time_column }}',
                interval '{{ settings.bucket }}', interval '{{ settings.chunk_interval }}',
                $query${{ sql }}$query$, '{{ tojson(settings.options) }}'
            )
        {%- endcall -%}
        {%- do check_aggregate(columns_of(new), settings) -%}
    {%- endif -%}
    {{ adapter.commit() }}

    {%- if whole and not flags.EMPTY -%}
        {%- do refresh_aggregate(new, 'null', 'null') -%}
    {%- else -%}
        {%- set spans = [] if whole else spans_at_hand() -%}
        {%- for span in spans -%}
            {%- do refresh_aggregate(this, span['starts_at'], span['ends_at']) -%}
        {%- else -%}
            {%- call statement('main', auto_begin=False) -%}
                select 1 where false
            {%- endcall -%}
        {%- endfor -%}
    {%- endif -%}

    {%- do begin_transaction() -%}
    {%- if whole -%}
        {%- do create_indexes(new) -%}
        {%- call statement('swap') -%}
            select timeseries.replace_relation('{{ this.schema }}', '{{ new.identifier }}', '{{ this.identifier }}');
            select timeseries.set_refresh_policy('{{ this.schema }}', '{{ this.identifier }}')
        {%- endcall -%}
        {%- call statement('analyze') -%}
            select timeseries.analyze_aggregate('{{ this }}')
        {%- endcall -%}
    {%- endif -%}
    {%- call statement('end_build') -%}
        {{ set_lifecycle(settings) }};
        {{ note_looked_at(settings.bucket) }};
        {{ end_build() }}
    {%- endcall -%}

    {%- set target_relation = this.incorporate(type=aggregate_type() if whole else existing.type) -%}
    {%- do apply_grants(target_relation, config.get('grants'), should_revoke(existing, full_refresh_mode=whole)) -%}
    {%- do persist_docs(target_relation, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {%- if whole -%}
        {%- call statement('drop_parked', auto_begin=False) -%}
            select timeseries.drop_parked()
        {%- endcall -%}
    {%- endif -%}
    {%- do unlock_relation_of_session() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#- With --empty dbt puts a query of no rows in the place of each table, which an aggregate cannot be made of. -#}
{% macro without_limits(sql) %}
    {{ return(modules.re.sub('\(select \* from (\S+) where false limit 0\) _dbt_limit_subq_\w+', '\g<1>', sql)) }}
{% endmacro %}

{#-
    PostgreSQL from 16 on sorts all rows of a distinct count by the groups and the counted column at once; group after
    group takes half as long.
-#}
{% macro refresh_aggregate(relation, starts_at, ends_at) %}
    {%- call statement('unsorted', auto_begin=False) -%}
        select set_config(name, 'off', false) from pg_settings where name = 'enable_presorted_aggregate'
    {%- endcall -%}
    {%- call statement('main', auto_begin=False) -%}
        call timeseries.refresh_continuous_aggregate('{{ relation }}', {{ starts_at }}, {{ ends_at }})
    {%- endcall -%}
{% endmacro %}

{#- The days of the slices at hand, whosever they are: an aggregate is refreshed for all tenants. As literals. -#}
{% macro spans_at_hand() %}
    {{ return(run_query(
        "select coalesce(quote_literal(lower(s) || ' 00:00:00+00'), 'null') as starts_at,"
        ~ " coalesce(quote_literal(upper(s) || ' 00:00:00+00'), 'null') as ends_at"
        ~ " from ingest.spans('" ~ tojson(build_at_hand().slices) | replace("'", "''") ~ "') as s order by s"
    )) }}
{% endmacro %}

{#- Whether the aggregate that stands there has this SQL, bucket and options. -#}
{% macro is_defined_as(settings, sql) %}
    {%- set query -%}
        select 1
        from timeseries.continuous_aggregates as a
        inner join timeseries.hypertables as h on a.schema_name = h.schema_name and a.table_name = h.table_name
        where
            a.schema_name = '{{ this.schema }}' and a.table_name = '{{ this.identifier }}'
            and a.query = $query${{ sql }}$query$
            and a.bucket = interval '{{ settings.bucket }}'
            and a.options = '{{ tojson(settings.options) }}'
            and h.time_column = '{{ settings.time_column }}'
            and h.chunk_interval = interval '{{ settings.chunk_interval }}'
    {%- endset -%}
    {{ return(run_query(query) | length > 0) }}
{% endmacro %}

{% macro check_aggregate(columns, settings) %}
    {%- set found = columns | selectattr('name', 'equalto', settings.time_column) | list -%}
    {%- if not found -%}
        {%- do model_error("time_column is " ~ settings.time_column ~ ", but its SQL gives no such column. Select {{ time_bucket(...) }} as " ~ settings.time_column ~ ", or name another.") -%}
    {%- elif found[0].type not in ['timestamp with time zone', 'date'] -%}
        {%- do model_error("time_column " ~ settings.time_column ~ " is a " ~ found[0].type ~ ". Bucket a timestamptz or a date.") -%}
    {%- endif -%}
{% endmacro %}

{#- TimescaleDB shows an aggregate as a view, the other engine as a table. -#}
{% macro aggregate_type() %}
    {{ return('view' if run_query('select timeseries.engine() as name')[0]['name'] == 'timescaledb' else 'table') }}
{% endmacro %}
