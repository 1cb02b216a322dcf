{#-
    dbt asks twice for the columns and sets every comment anew at every refresh; here one question says whether the comments
    are those of the project already.
-#}
{% macro postgres__persist_docs(relation, model, for_relation, for_columns) %}
    {%- set query -%}
        select coalesce(a.attname, '') as name, d.description
        from pg_description as d
        left join pg_attribute as a on d.objoid = a.attrelid and d.objsubid = a.attnum
        where d.objoid = '{{ relation }}'::regclass and d.classoid = 'pg_class'::regclass
    {%- endset -%}
    {%- set found = {} -%}
    {%- for row in run_query(query) -%}{%- do found.update({row['name']: row['description']}) -%}{%- endfor -%}
    {%- set differing = [] -%}
    {%- if for_relation and config.persist_relation_docs() and found.get('', '') != model.description -%}
        {%- do differing.append('') -%}
    {%- endif -%}
    {%- for column in model.columns.values() if for_columns and config.persist_column_docs() -%}
        {%- if found.get(column.name, '') != column.description -%}
            {%- do differing.append(column.name) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if differing -%}
        {{ return(default__persist_docs(relation, model, for_relation, for_columns)) }}
    {%- endif -%}
{% endmacro %}
