{#-
    Hooks, and where a materialization's transaction begins.

    TimescaleDB refreshes a continuous aggregate only outside of transactions, and psycopg2, which dbt-postgres stands
    on, opens one before every statement unless it is in autocommit. So the connection is in autocommit
    (profiles.yml), and the transaction that dbt means to be open while pre-hooks run inside of it begins here.
    dbt ends it itself (adapter.commit()); on an error it closes the connection, which takes all of it back.
-#}
{% macro run_hooks(hooks, inside_transaction=True) %}
    {%- if inside_transaction and hooks is sameas pre_hooks -%}
        {%- do begin_transaction() -%}
    {%- endif -%}
    {%- for hook in hooks | selectattr('transaction', 'equalto', inside_transaction) -%}
        {%- set rendered = render(hook.get('sql')) | trim -%}
        {%- if rendered -%}
            {%- call statement(auto_begin=inside_transaction) -%}
                {{ rendered }}
            {%- endcall -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}

{% macro begin_transaction() %}
    {%- call statement('begin') -%}
        begin
    {%- endcall -%}
{% endmacro %}
