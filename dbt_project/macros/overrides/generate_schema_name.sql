{#- A model's schema follows from how its name begins, whatever its folder: BI tools read marts. Anything else (seeds) says
its own. Nothing is put before or after it. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set schemas = {
        'stg': 'staging', 'int': 'intermediate', 'cagg': 'rollups', 'dim': 'marts', 'fct': 'marts', 'rpt': 'marts'
    } -%}
    {%- if custom_schema_name is not none -%}
        {{ custom_schema_name | trim }}
    {%- else -%}
        {{ schemas.get(node.name.split('_')[0], target.schema) if node.resource_type == 'model' else target.schema }}
    {%- endif -%}
{%- endmacro %}
