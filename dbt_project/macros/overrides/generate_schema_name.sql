{#- A schema is named in dbt_project.yml and nowhere else: nothing is put before or after it. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name | trim if custom_schema_name is not none else target.schema }}
{%- endmacro %}
