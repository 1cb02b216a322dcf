{#- An aggregate: the first value of a column, in an order, of the rows that have one (or that `where` picks). -#}
{% macro first_known(column, order_by, where=none) -%}
    (array_agg({{ column }} order by {{ order_by }}) filter (where {{ where or column ~ ' is not null' }}))[1]
{%- endmacro %}
