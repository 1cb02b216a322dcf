{#-
    The engine postgres: a hypertable is a range-partitioned table, made by the functions of schema timeseries.
    Everything a materialization asks of an engine is here; the names begin with engine__.
-#}

{#- Build a table from all staged rows beside the live one, then put it in its place. -#}
{% macro engine__build_whole(relation, staged, columns, settings) %}
    {%- set new = relation.incorporate(path={'identifier': relation.identifier ~ '__new'}) -%}
    {%- call statement('create') -%}
        drop table if exists {{ new }};
        select timeseries.create_hypertable(
            '{{ new.schema }}', '{{ new.identifier }}', '{{ settings.time_column }}',
            interval '{{ settings.chunk_interval }}', $definition${{ table_definition(columns) }}$definition$
        )
    {%- endcall -%}
    {%- do engine__ensure_chunks(new, staged, settings) -%}
    {%- call statement('main') -%}
        insert into {{ new }} ({{ quoted_names(columns) }})
        select {{ quoted_names(columns) }} from {{ adapter.quote(staged) }}
    {%- endcall -%}
    {%- do create_indexes(new) -%}
    {%- call statement('swap') -%}
        {{ swap_keeping_views(relation, new) }}
    {%- endcall -%}
    {%- call statement('analyze') -%}
        analyze {{ relation }}
    {%- endcall -%}
{% endmacro %}

{#- Replace the rows that the predicate describes with the staged ones. -#}
{% macro engine__replace_windows(relation, staged, columns, settings, predicate) %}
    {%- do engine__ensure_chunks(relation, staged, settings) -%}
    {%- call statement('delete') -%}
        delete from {{ relation }} where {{ predicate }}
    {%- endcall -%}
    {%- call statement('main') -%}
        insert into {{ relation }} ({{ quoted_names(columns) }})
        select {{ quoted_names(columns) }} from {{ adapter.quote(staged) }}
    {%- endcall -%}
{% endmacro %}

{#- Make the chunks that the staged rows need, and no others: a window may reach into an empty future. -#}
{% macro engine__ensure_chunks(relation, staged, settings) %}
    {%- call statement('chunks') -%}
        select timeseries.ensure_chunks('{{ relation }}', needed.starts_at, needed.starts_at + interval '1 microsecond')
        from (
            select distinct timeseries.chunk_start(days.day at time zone 'UTC', interval '{{ settings.chunk_interval }}') as starts_at
            from (
                {%- if (columns_of(staged) | selectattr('name', 'equalto', settings.time_column) | first).type == 'date' %}
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
