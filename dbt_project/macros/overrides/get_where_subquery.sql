{#-
    What a data test looks at. A test must not cost the history when slices are refreshed, so:
      - a test on a hypertable or continuous aggregate looks at the slices that its model has looked at in this run,
        without being told; config(meta={'whole_history': true}) on the test switches that off;
      - `where: "__in_slices__(occurred_at)"` does the same for any other relation with a column of time.
    Without slices every test looks at everything.
-#}
{% macro postgres__get_where_subquery(relation) -%}
    {%- set conditions = [] -%}
    {%- set tested = graph.nodes.get(model.attached_node) if execute else none -%}
    {%- if tested and tested.config.materialized in sliced_materializations() and not builds_whole()
        and not (config.get('meta') or {}).get('whole_history') -%}
        {%- set widening = own_widening(tested) -%}
        {%- set column = tested.columns.get(tested.config.time_column) -%}
        {%- do conditions.append(in_slices(
            tested.config.time_column, widening.before, widening.after,
            'date' if column and column.data_type == 'date' else 'timestamptz',
            none if tested.config.get('by_tenant', true) and tested.config.materialized == 'hypertable' else false,
        )) -%}
    {%- endif -%}
    {%- set where = config.get('where') -%}
    {%- if where -%}
        {%- set match = modules.re.search('__in_slices__\(\s*([a-z_.]+)\s*\)', where) -%}
        {%- if match -%}
            {%- set column = (tested.columns if tested else {}).get(match.group(1)) -%}
            {%- set is_date = column and column.data_type == 'date' -%}
            {%- set where = where.replace(
                match.group(0), in_slices(match.group(1), column_type='date' if is_date else 'timestamptz')
            ) -%}
        {%- endif -%}
        {%- do conditions.append('(' ~ where ~ ')') -%}
    {%- endif -%}
    {%- if conditions -%}
        {{ return('(select * from ' ~ relation ~ ' where ' ~ conditions | join(' and ') ~ ') as tested_rows') }}
    {%- endif -%}
    {{ return(relation) }}
{%- endmacro %}
