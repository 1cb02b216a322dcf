{#- The materializations whose table is refreshed by window. -#}
{% macro windowed_materializations() %}
    {{ return(['hypertable', 'continuous_aggregate']) }}
{% endmacro %}

{#-
    The checked config of the windowed model at hand: time_column, chunk_interval, before_days, after_days.
    A mistake is a compile error that names the model and the fix.
-#}
{% macro windowed_config() %}
    {%- set time_column = config.get('time_column') -%}
    {%- set chunk_interval = config.get('chunk_interval', '7 days') -%}
    {%- set kind = model.config.materialized -%}
    {%- if not time_column -%}
        {%- do windowed_error("a " ~ kind ~ " needs a time_column. Add time_column='...' to its config: the column that its windows are cut by.") -%}
    {%- endif -%}
    {%- if chunk_interval is not string or modules.re.match('^[1-9]\d* days?$', chunk_interval) is none -%}
        {%- do windowed_error("chunk_interval is whole days, such as '7 days', not '" ~ chunk_interval ~ "'.") -%}
    {%- endif -%}
    {%- for name in ['window_before_days', 'window_after_days'] -%}
        {%- set days = config.get(name, 0) -%}
        {%- if days is not integer or days is boolean or days < 0 -%}
            {%- do windowed_error(name ~ " is a whole number of days, 0 or more, not '" ~ days ~ "'.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set known = ['time_column', 'chunk_interval', 'window_before_days', 'window_after_days'] -%}
    {%- for name in model.config.keys() -%}
        {%- if name not in known + standard_configs() -%}
            {%- do windowed_error("there is no config '" ~ name ~ "' for a " ~ kind ~ ". It takes " ~ known | join(', ') ~ " and dbt's own.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if config.get('on_schema_change') not in [none, 'ignore', 'fail'] -%}
        {%- do windowed_error("on_schema_change can only be 'fail' here: a window cannot change the columns of the other windows. Take it out.") -%}
    {%- endif -%}
    {%- for index in config.get('indexes') or [] -%}
        {%- if index.unique and time_column not in index.columns -%}
            {%- do windowed_error("the unique index on (" ~ index.columns | join(', ') ~ ") must hold the time column " ~ time_column ~ ": a hypertable can only keep a key unique within a time.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set chunk_name = this.schema ~ '__' ~ this.identifier ~ '__new__YYYYMMDD' -%}
    {%- if chunk_name | length > 63 -%}
        {%- do windowed_error("its chunks would be named " ~ chunk_name ~ ", longer than the 63 characters that PostgreSQL keeps. Take a shorter name.") -%}
    {%- endif -%}
    {{ return({
        'time_column': time_column,
        'chunk_interval': chunk_interval,
        'before_days': config.get('window_before_days', 0),
        'after_days': config.get('window_after_days', 0),
    }) }}
{% endmacro %}

{% macro windowed_error(message) %}
    {{ exceptions.raise_compiler_error('Model ' ~ model.name ~ ': ' ~ message) }}
{% endmacro %}

{#- What dbt itself puts into a model's config; anything else is ours or a slip of the pen. -#}
{% macro standard_configs() %}
    {{ return([
        'access', 'alias', 'batch_size', 'begin', 'column_types', 'concurrent_batches', 'contract', 'database', 'docs',
        'enabled', 'event_time', 'freshness', 'full_refresh', 'grants', 'group', 'incremental_strategy', 'indexes',
        'lookback', 'materialized', 'meta', 'on_configuration_change', 'on_schema_change', 'packages', 'persist_docs',
        'post-hook', 'pre-hook', 'quoting', 'schema', 'sql_header', 'static_analysis', 'submission_method', 'tags',
        'unique_key', 'unlogged',
    ]) }}
{% endmacro %}
