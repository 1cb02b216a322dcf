{#-
    What a model takes as news from the change log, and what it notes there: the functions of schema ingest
    (migrations/functions/change_log.sql) say what a change is and how it is known; here dbt calls them.
-#}

{#- On-run-start: forget what every model has seen. -#}
{% macro begin_run() %}
    {%- if execute and flags.WHICH in ['build', 'run', 'retry', 'test'] -%}
        {%- set found = run_query("select to_regprocedure('ingest.begin_run()') is not null as is_there") -%}
        {%- if not found[0]['is_there'] -%}
            {{ exceptions.raise_compiler_error('The database is not migrated. Run: earmark migrate') }}
        {%- endif -%}
        {%- if flags.WHICH != 'test' -%}
            {%- do run_query('select ingest.begin_run()') -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{#-
    The build of the model at hand in this invocation: slices (none: it is built whole; else groups of tenants and days, see
    ingest.builds) and horizon (the day before which retention has dropped rows, or none). Asked once, then kept with the model.
-#}
{% macro build_at_hand() %}
    {%- if 'build' not in model -%}
        {%- set build = begin_build(has_no_slices()) -%}
        {#- TimescaleDB ties an aggregate to the table that it was made on. -#}
        {%- if model.config.materialized == 'continuous_aggregate' and any_of_all(build.slices) -%}
            {%- set build = begin_build(true) -%}
        {%- endif -%}
        {%- do model.update({'build': build}) -%}
    {%- endif -%}
    {{ return(model.build) }}
{% endmacro %}

{#- Whether any day of every tenant is news: a producer was built whole, or emptied. -#}
{% macro any_of_all(slices) %}
    {%- for group in slices or [] if group.tenants is none and group.days[-1][1] is none -%}
        {{ return(true) }}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}

{% macro begin_build(whole) %}
    {%- set query -%}
        select b.slices::text as slices, b.horizon
        from ingest.begin_build(
            '{{ model.name }}', '{{ invocation_id }}', {{ producers(model) }}, {{ whole }}, {{ given_multirange() }}
        ) as b
    {%- endset -%}
    {%- set row = run_query(query)[0] -%}
    {{ return({
        'slices': fromjson(row['slices']) if row['slices'] is not none else none,
        'horizon': row['horizon'],
    }) }}
{% endmacro %}

{#- The days that were asked for, as a datemultirange; null where none were. -#}
{% macro given_multirange() %}
    {%- set given = [] -%}
    {%- for span in given_days() or [] -%}
        {%- do given.append("'[" ~ span[0] ~ ',' ~ span[1] ~ ")'::daterange") -%}
    {%- endfor -%}
    {{ return('datemultirange(' ~ given | join(', ') ~ ')' if given else 'null') }}
{% endmacro %}

{#-
    A call block at the head of a model that finds by the keys of its news what hangs on them: a query of tenant_id and day,
    UTC, and with the config unit that column too. The model then looks at these slices, and in them at these units alone; it
    says so with in_units(). Not asked where the model is built whole.

    Where keys are unknown the query has all that can hang on the slice: in_news() is the condition for that.
-#}
{% macro looks_at() %}
    {%- if not execute -%}
        {%- do caller() -%}
    {%- elif flags.WHICH in ['build', 'run', 'retry'] and build_at_hand().slices -%}
        {%- set query = caller() -%}
        {%- do run_query('drop table if exists ' ~ looked_at() ~ '; create temporary table ' ~ looked_at() ~ ' as ' ~ query) -%}
        {%- set slices = run_query(
            "select ingest.look_at('" ~ model.name ~ "', '" ~ invocation_id ~ "', array_agg(tenant_id), array_agg(day))::text as slices from "
            ~ looked_at()
        )[0]['slices'] -%}
        {%- do run_query('analyze ' ~ looked_at()) -%}
        {%- do build_at_hand().update({'slices': fromjson(slices)}) -%}
    {%- endif -%}
{% endmacro %}

{#- What is news to the model at hand: tenant_id (empty: all), day (-infinity: any), key (a column; empty: any row), value. -#}
{% macro news() %}
    {{ return("ingest.news('" ~ model.name ~ "', " ~ producers(model) ~ ', ' ~ given_multirange() ~ ')') }}
{% endmacro %}

{#- The condition that rows lie in slices of which the news do not say which rows changed, and in the days after them. -#}
{% macro in_news(column, after_days=0) %}
    {%- if not execute -%}
        {{ return('true') }}
    {%- endif -%}
    {%- set slices = run_query(
        "select ingest.grouped(array_agg(tenant_id), array_agg(day))::text as slices from " ~ news() ~ " as n where key = ''"
    )[0]['slices'] -%}
    {{ return(slices_predicate(fromjson(slices), column, after_days=after_days)) }}
{% endmacro %}

{#- The condition that rows belong to the units that the model at hand looks at. -#}
{% macro in_units() %}
    {%- if not execute or flags.WHICH not in ['build', 'run', 'retry'] or not build_at_hand().slices -%}
        {{ return('true') }}
    {%- endif -%}
    {%- set unit = config.get('unit') -%}
    {{ return(
        '(tenant_id, ' ~ unit ~ ') in (select looked_at.tenant_id, looked_at.' ~ unit ~ ' from ' ~ looked_at() ~ ' as looked_at)'
    ) }}
{% endmacro %}

{% macro looked_at() %}
    {{ return('pg_temp.' ~ adapter.quote(this.identifier ~ '__looked_at')) }}
{% endmacro %}

{#- Whether the model at hand can only be built whole in this invocation, or is meant to be. -#}
{% macro has_no_slices() %}
    {%- set existing = load_cached_relation(this) -%}
    {{ return(
        model.name in var('rebuild', []) or flags.FULL_REFRESH or should_full_refresh() or existing is none
        or not is_sliced(model)
        or (model.config.materialized == 'hypertable' and not existing.is_table)
        or (model.config.materialized == 'continuous_aggregate' and not is_defined_as(sliced_config(), without_limits(model.compiled_code)))
    ) }}
{% endmacro %}

{#- The SQL that notes that the model at hand is built, in the transaction of its rows; changed: the slices, where known. -#}
{% macro end_build(changed=none) %}
    select ingest.end_build(
        '{{ model.name }}', '{{ invocation_id }}', {{ producers(model) }}, {{ "'" ~ changed ~ "'" if changed is not none else 'null' }}
    )
{%- endmacro %}

{#-
    The SQL that notes the slices that the model at hand looked at, as if all of them had come out otherwise: for models that
    do not compare. An aggregate's rows bear the day that their bucket begins.
-#}
{% macro note_looked_at(bucket=none) %}
    {%- set start = "(" ~ time_bucket("s.day::timestamp at time zone 'UTC'", bucket) ~ " at time zone 'UTC')::date" if bucket else 's.day' %}
    select ingest.note(b.model, array_agg(s.tenant_id), array_agg(case when isfinite(s.day) then {{ start }} else s.day end))
    from ingest.builds as b
    cross join lateral ingest.listed(b.slices) as s
    where b.model = '{{ model.name }}' and b.invocation_id = '{{ invocation_id }}'
    group by b.model
{%- endmacro %}

{#- A post-hook for an incremental model: the other models with slices note their builds by themselves. -#}
{% macro note_build() -%}
    {%- if execute -%}
        {{ note_looked_at() }};
        {{ end_build() }}
    {%- endif -%}
{%- endmacro %}

{#- The models with slices, and raw tables, that a node reads, directly or through views: an array of text. -#}
{% macro producers(node) %}
    {%- set names = [] -%}
    {%- for producer in producers_of(node) -%}
        {%- do names.append("'" ~ (producer.name if producer.resource_type == 'model' else producer.schema ~ '.' ~ producer.identifier) ~ "'") -%}
    {%- endfor -%}
    {{ return('array[' ~ names | sort | join(', ') ~ ']::text[]') }}
{% endmacro %}

{% macro producers_of(node) %}
    {%- set found = [] -%}
    {%- set waiting = node.depends_on.nodes | list -%}
    {%- set seen = [] -%}
    {%- for _ in range(10000) if waiting -%}
        {%- set id = waiting.pop() -%}
        {%- if id not in seen -%}
            {%- do seen.append(id) -%}
            {%- set parent = graph.nodes.get(id) or graph.sources.get(id) -%}
            {%- if parent and (parent.resource_type == 'source' or is_sliced(parent)) -%}
                {%- do found.append(parent) -%}
            {%- elif parent and parent.resource_type == 'model' -%}
                {%- do waiting.extend(parent.depends_on.nodes) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}
