{#- A pre-hook for an incremental model: building the whole starts empty. -#}
{% macro empty_when_whole() -%}
    {%- if execute and builds_whole() and load_cached_relation(this) is not none -%}
        delete from {{ this }}
    {%- endif -%}
{%- endmacro %}
