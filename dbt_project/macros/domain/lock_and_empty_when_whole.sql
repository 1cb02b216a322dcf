{#- A pre-hook for an incremental model: two refreshes wait for each other; building the whole starts empty. -#}
{% macro lock_and_empty_when_whole() -%}
    {%- if execute -%}
        select pg_advisory_xact_lock(hashtextextended('earmark refresh {{ this.schema }}.{{ this.identifier }}', 0))
        {%- if builds_whole() and load_cached_relation(this) is not none -%}
            ; delete from {{ this }}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
