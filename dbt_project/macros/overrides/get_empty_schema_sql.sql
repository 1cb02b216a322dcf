{#-
    The columns of a contract as an empty query. dbt's own warns of numeric without precision, which rounds on other
    databases; on PostgreSQL it is exact, and money and credit shares are meant to be.
-#}
{% macro postgres__get_empty_schema_sql(columns) -%}
    {%- set selected = [] -%}
    {%- set untyped = [] -%}
    {%- for column in columns.values() -%}
        {%- if column.data_type is not defined or not column.data_type -%}
            {%- do untyped.append(column.name) -%}
        {%- endif -%}
        {%- set name = adapter.quote(column.name) if column.get('quote') else column.name -%}
        {%- do selected.append(cast('null', column.data_type) ~ ' as ' ~ name) -%}
    {%- endfor -%}
    {%- if untyped -%}
        {{ exceptions.column_type_missing(column_names=untyped) }}
    {%- endif -%}
    {{ return('select ' ~ selected | join(', ')) }}
{%- endmacro %}
