{#- Bits a second of a file of so many bytes, by the duration of its episode; null where either is not known. -#}
{% macro bitrate_bps(bytes) -%}
    ((nullif({{ bytes }}, 0) - {{ bytes.split('.')[0] }}.id3_bytes) * 8 / nullif({{ bytes.split('.')[0] }}.duration_seconds, 0))::bigint
{%- endmacro %}
