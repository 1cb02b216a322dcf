{#-
    Hooks, and where a materialization's transaction begins.

    TimescaleDB refreshes a continuous aggregate only outside of transactions, and psycopg2, which dbt-postgres stands
    on, opens one before every statement unless it is in autocommit. So the connection is in autocommit
    (profiles.yml), and the transaction that dbt means to be open while pre-hooks run inside of it begins here.
    dbt ends it itself (adapter.commit()); on an error it closes the connection, which takes all of it back.

    The transaction begins with the lock of the relation: two builds of one model wait for each other.
-#}
{% macro run_hooks(hooks, inside_transaction=True) %}
    {%- if inside_transaction and hooks is sameas pre_hooks -%}
        {%- do begin_transaction() -%}
        {%- do lock_relation() -%}
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

{#- Until the transaction ends; with "of_session" until it is given back or the session ends. -#}
{% macro lock_relation(of_session=false) %}
    {%- call statement('lock', auto_begin=false) -%}
        select pg_advisory_{{ '' if of_session else 'xact_' }}lock({{ lock_key() }})
    {%- endcall -%}
{% endmacro %}

{% macro unlock_relation_of_session() %}
    {%- call statement('unlock', auto_begin=false) -%}
        select pg_advisory_unlock({{ lock_key() }})
    {%- endcall -%}
{% endmacro %}

{% macro lock_key() %}
    {{ return("hashtextextended('earmark refresh " ~ this.schema ~ '.' ~ this.identifier ~ "', 0)") }}
{% endmacro %}
