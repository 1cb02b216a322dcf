{#-
    What a model has seen of the changes: the bookkeeping behind windows that nobody gave. The functions of schema
    ingest (migrations/0009_changes.sql) say what a change is and how it is known; here dbt calls them.
-#}

{#- On-run-start: fix what this invocation starts from. -#}
{% macro begin_run() %}
    {%- if execute and flags.WHICH in ['build', 'run', 'retry', 'test'] -%}
        {%- set found = run_query("select to_regprocedure('ingest.begin_run(text)') is not null as is_there") -%}
        {%- if not found[0]['is_there'] -%}
            {{ exceptions.raise_compiler_error('The database is not migrated. Run: earmark migrate') }}
        {%- endif -%}
        {%- if flags.WHICH != 'test' -%}
            {%- do run_query("select ingest.begin_run('" ~ invocation_id ~ "')") -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{#-
    The state of a model in this invocation: windows (none where it was never built), made of news (days that changed) and
    widened (days that models which it reads have handed on), was_replaced (a table that
    it stands on is another one now), horizon (the day before which retention has dropped rows, or none).
-#}
{% macro build_state(name) %}
    {%- set query -%}
        select
            r.days ->> '{{ name }}' as days,
            (
                select coalesce(jsonb_agg(w.day), '[]')::text
                from ingest.widened_days_of('{{ name }}', '{{ invocation_id }}') as w (day)
            ) as widened,
            r.horizon,
            coalesce(
                b.stands_on <> ingest.oids_of(array(select jsonb_object_keys(b.stands_on))), false
            ) as was_replaced
        from (select 1 as one) as always
        left join ingest.runs as r on r.invocation_id = '{{ invocation_id }}'
        left join ingest.model_builds as b on b.model = '{{ name }}'
    {%- endset -%}
    {%- set row = run_query(query)[0] -%}
    {{ return({
        'windows': windows_of_days(fromjson(row['days']) + fromjson(row['widened'])) if row['days'] is not none else none,
        'news': windows_of_days(fromjson(row['days'])) if row['days'] is not none else [],
        'widened': windows_of_days(fromjson(row['widened'])),
        'was_replaced': row['was_replaced'],
        'horizon': row['horizon'],
    }) }}
{% endmacro %}

{#- The SQL that notes a build of the model at hand, in the transaction of its rows. -#}
{% macro end_build(whole) %}
    {%- set parents = windowed_parents(model) -%}
    {%- set names = [] -%}
    {%- set relations = [] -%}
    {%- for parent in parents -%}
        {%- do names.append("'" ~ parent.name ~ "'") -%}
        {%- do relations.append("'" ~ adapter.quote(parent.schema) ~ '.' ~ adapter.quote(parent.alias) ~ "'") -%}
    {%- endfor -%}
    {%- set given = given_windows() -%}
    {%- set ranges = [] -%}
    {%- for window in given or [] -%}
        {%- do ranges.append("daterange '[" ~ window[0].isoformat() ~ ',' ~ window[1].isoformat() ~ ")'") -%}
    {%- endfor -%}
    select ingest.end_build(
        '{{ model.name }}', '{{ invocation_id }}', {{ whole }},
        array[{{ names | join(', ') }}]::text[], array[{{ relations | join(', ') }}]::text[],
        {{ 'array[' ~ ranges | join(', ') ~ ']' if ranges else 'null' }}
    )
    {%- if run_query("select 1 from ingest.widened_days_of('" ~ model.name ~ "', '" ~ invocation_id ~ "') limit 1") | length -%}
    ;
    select ingest.hand_on_widened(
        '{{ model.name }}', '{{ invocation_id }}', {{ whole }}, array[daterange '(,)'],
        {#- A hypertable has handed on what really changed. #}
        {{ "array[]::text[]" if model.config.materialized == 'hypertable' else windowed_readers() }}
    )
    {%- endif -%}
{% endmacro %}

{#- The models with windows that read the model at hand, directly or through views, as an array of text. -#}
{% macro windowed_readers() %}
    {%- set names = [] -%}
    {%- for id, node in graph.nodes.items() -%}
        {%- if node.resource_type == 'model' and node.config.materialized in windowed_materializations() + ['incremental']
            and windowed_parents(node) | selectattr('name', 'equalto', model.name) | list -%}
            {%- do names.append("'" ~ node.name ~ "'") -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return('array[' ~ names | join(', ') ~ ']::text[]') }}
{% endmacro %}

{#- The models with windows that a node stands on, directly or through views. -#}
{% macro windowed_parents(node) %}
    {%- set found = {} -%}
    {%- set waiting = node.depends_on.nodes | list -%}
    {%- set seen = [] -%}
    {%- for _ in range(10000) if waiting -%}
        {%- set id = waiting.pop() -%}
        {%- set parent = graph.nodes.get(id) -%}
        {%- if id not in seen and parent and parent.resource_type == 'model' -%}
            {%- if parent.config.materialized in windowed_materializations() + ['incremental'] -%}
                {%- do found.update({id: parent}) -%}
            {%- else -%}
                {%- do waiting.extend(parent.depends_on.nodes) -%}
            {%- endif -%}
        {%- endif -%}
        {%- do seen.append(id) -%}
    {%- endfor -%}
    {{ return(found.values() | list) }}
{% endmacro %}

{#- A post-hook for an incremental model: the other windowed models note their builds by themselves. -#}
{% macro note_build() -%}
    {%- if execute -%}
        {{ end_build(builds_whole()) }}
    {%- endif -%}
{%- endmacro %}
