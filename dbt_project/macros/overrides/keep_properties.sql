{#-
    A relation that is made anew has what was set on the one before: owner, grants, comments, row policies and so on
    (migrations/functions/relations.sql). dbt drops a relation with all views on it, or renames a table, makes the new
    one, grants what the config says, and drops the renamed one in the end; so these two are the places to keep and restore.
    Hypertables and aggregates are replaced by a function that does both.
-#}
{% macro postgres__drop_relation(relation) %}
    {%- call statement('keep_properties', auto_begin=false) -%}
        select timeseries.keep_properties('{{ relation.schema }}', '{{ relation.identifier }}')
    {%- endcall -%}
    {{ return(default__drop_relation(relation)) }}
{% endmacro %}

{% macro postgres__apply_grants(relation, grant_config, should_revoke=true) %}
    {%- if not is_sliced(model) or builds_whole() -%}
        {%- call statement('restore_properties') -%}
            select timeseries.restore_properties(
                '{{ relation.schema }}', '{{ relation.identifier }}', '{{ make_backup_relation(relation, 'table').identifier }}'
            )
        {%- endcall -%}
    {%- endif -%}
    {{ return(default__apply_grants(relation, grant_config, should_revoke)) }}
{% endmacro %}
