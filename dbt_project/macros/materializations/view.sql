{#-
    Views are replaced in place. dbt's own materialization makes a new view, renames the old one and drops it with
    all that stands on it; here a view whose columns have not changed keeps the views on top of it, its grants and
    its options, and no reader finds it missing. Where PostgreSQL cannot replace it (a column gone, renamed or of
    another type), it is dropped with what stands on it and made anew, as dbt does.
-#}
{% materialization view, adapter='postgres' %}
    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set existing = load_cached_relation(this) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {%- do get_assert_columns_equivalent(sql) -%}
    {%- endif -%}
    {%- set options = none -%}
    {%- if existing is not none and existing.is_view and can_replace_view(existing, sql) -%}
        {%- set options = view_options(existing) -%}
    {%- elif existing is not none -%}
        {%- do adapter.drop_relation(existing) -%}
    {%- endif -%}
    {%- call statement('main') -%}
        create or replace view {{ target_relation }} {% if options %}with ({{ options }}){% endif %} as (
            {{ sql }}
        )
    {%- endcall -%}

    {%- do apply_grants(target_relation, config.get('grants'), should_revoke(existing, full_refresh_mode=False)) -%}
    {%- do persist_docs(target_relation, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#- Whether the columns of the view stay as they are, or only new ones are added at the end. -#}
{% macro can_replace_view(existing, sql) %}
    {%- set shape = this.identifier ~ '__shape' -%}
    {%- call statement('shape') -%}
        create temporary view {{ adapter.quote(shape) }} as (
            {{ sql }}
        )
    {%- endcall -%}
    {%- set wanted = columns_of(shape) -%}
    {%- set live = columns_of(existing) -%}
    {%- call statement('drop_shape') -%}
        drop view {{ adapter.quote(shape) }}
    {%- endcall -%}
    {{ return(wanted[:live | length] == live) }}
{% endmacro %}

{#- The options of a view (security_barrier): replacing it would take them off. -#}
{% macro view_options(relation) %}
    {%- set query -%}
        select array_to_string(reloptions, ', ') as options from pg_class where oid = '{{ relation }}'::regclass
    {%- endset -%}
    {{ return(run_query(query)[0]['options']) }}
{% endmacro %}
